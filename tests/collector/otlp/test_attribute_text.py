"""One text for any value of an attribute, in every label, key, line and pattern (O3)."""

import pytest
from hypothesis import assume, given
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from collector.otlp import attribute_text
from collector.processors.shared.attribute_map import value_of
from tests.strategies import any_values


def array(*values):
    return AnyValue(array_value=ArrayValue(values=values))


def mapping(**values):
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return AnyValue(kvlist_value=KeyValueList(values=pairs))


TEXT = AnyValue(string_value='a"\n')


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (TEXT, 'a"\n'),
        (AnyValue(bool_value=True), "true"),
        (AnyValue(int_value=-7), "-7"),
        (AnyValue(double_value=1.0), "1"),
        (AnyValue(double_value=0.25), "0.25"),
        (AnyValue(double_value=1e300), "1e300"),
        (AnyValue(double_value=float("nan")), "NaN"),
        (AnyValue(double_value=float("-inf")), "-Infinity"),
        (AnyValue(bytes_value=b"\0\xff"), "AP8="),
        (AnyValue(), ""),
        (array(), "[]"),
        (array(TEXT, AnyValue(), AnyValue(double_value=2.0)), '["a\\"\\n",null,2]'),
        (mapping(), "{}"),
        (
            mapping(a=array(AnyValue(bytes_value=b"x")), b=AnyValue(double_value=float("inf"))),
            '{"a":["eA=="],"b":"Infinity"}',
        ),
    ],
)
def test_values(value, text):
    """OpenTelemetry's mapping for protocols that have no such values."""
    assert attribute_text(value) == text


@given(any_values())
def test_a_message_and_a_python_value_have_one_text(value):
    """
    What connectors read from protobuf is what processors and documents read from Python.

    A sender's own map with the key `$escape` is the exception: from Python it cannot be told from the mark that
    documents put around reserved keys.
    """
    assume("$escape" not in str(value))
    assert attribute_text(value) == attribute_text(value_of(value))
