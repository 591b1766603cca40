"""YAML as go-yaml v3 reads it, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.config.dialect import YamlError, dump_yaml, parse
from collector.config.nodes import plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("TRUE", True),
        ("tRue", "tRue"),
        ("no", "no"),
        ("off", "off"),
        ("12:30:45", "12:30:45"),
        ("1e3", 1000.0),
        ("0o17", 15),
        ("0123", 83),
        ("08", 8.0),
        ("0b101", 5),
        ("-0x10", -16),
        ("1_000", 1000),
        ("18446744073709551615", 18446744073709551615),
        ("99999999999999999999", 1e20),
        (".inf", float("inf")),
        ("-.inf", float("-inf")),
        ("1.", 1.0),
        ("+1", 1),
        ("+", "+"),
        (".", "."),
        ("2001-12-14", "2001-12-14"),
        ("'1'", "1"),
        ("!!float 1", 1.0),
        ("{404: x}", {"404": "x"}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x {b: 1, d: 2}\nc: {<<: *x, d: 3}", {"a": {"b": 1, "d": 2}, "c": {"b": 1, "d": 3}}),
        ("a::b: 1\na: {c: 2}", {"a": {"b": 1, "c": 2}}),
        ("\ufeffa: 1", {"a": 1}),
    ],
)
def test_scalars_and_structures(text, value):
    """Each text becomes what go-yaml v3 makes of it."""
    assert plain(parse(text, "x")) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", 'line 3: mapping key "a" already defined at line 1'),
        ("a: 1\na::b: 2", 'line 2: mapping key "a::b" already defined at line 1'),
        ("a: !custom 1", "line 1: unknown tag !custom"),
        ("a: !!python/object:os.system {}", "unknown tag !!python/object:os.system"),
        ("a: !!int x", 'cannot decode "x" as a !!int'),
        ("a: [", "line 1: "),
        ("\ta: 1", "line 1: "),
        ("a: *nope", "line 1: found undefined alias"),
        ("a: &x [*x]", "line 1: anchor value contains itself"),
        ("{[a]: 1}", "line 1: a key must be a scalar"),
        ("a: 1\n---\nb: 2", "line 2: but found another document"),
        ("<<: 1", "line 1: map merge requires map or sequence of maps as the value"),
        ("[" * 200 + "]" * 200, "nested deeper than 100 levels"),
        ("[" * 2000, "nested deeper than 100 levels"),
        ("::".join("a" * 300) + ": 1", "nested deeper than 100 levels"),
        ("a: " + "x" * 2**20, "larger than 1048576 bytes"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(
                f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n"
                for old, new in zip("abcdefg", "bcdefgh", strict=True)
            ),
            "excessive aliasing",
        ),
    ],
)
def test_refused(text, problem):
    """Duplicate keys, unknown tags, bad syntax and oversize are errors with their line."""
    with pytest.raises(YamlError) as caught:
        parse(text, "x")
    assert problem in str(caught.value)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]))
    | st.from_regex(r"[-+]?[0-9_.:eExob]+", fullmatch=True)
    | st.sampled_from(["no", "yes", "1e3", "0o17", "~", "012"]),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), inner)
    ),
)


@settings(max_examples=40)
@given(VALUES)
def test_what_is_printed_reads_back(value):
    """Printed YAML means the same when it is read again."""
    assert plain(parse(dump_yaml(value), "x")) == value


@given(st.text())
def test_any_text_is_yaml_or_a_yaml_error(text):
    """Hostile text ends in a value or in YamlError, never in another exception."""
    try:
        end = parse(text, "x").mark.source
    except YamlError as error:
        end = str(error)[:5]
    assert end in {"x", "yaml:"}
