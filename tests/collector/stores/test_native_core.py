"""The native core beside its twins in Python: BSON, rows of SQLite, for documents and for anything."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.documents.build import CORE, Binary, NonFinite, documents
from collector.model import Signal
from collector.stores.base import MAX_DOCUMENT_BYTES
from collector.stores.mongodb import bson as shape
from collector.stores.routing import TRAIL, trail
from collector.stores.sqlite import rows
from tests.strategies import batch, requests

SLOW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
NAMES = (
    *("_id", "attributes", "resource", "scope", "metadata", "body", "events", "links", "context"),
    *("trace", "exception", "time_unix_nano", "start_unix_nano", "received_at", "flags", "service"),
    *("name", "severity_number", "duration_ms", "attributes_raw", "a.b", "a", "$set", "", "x\0y"),
    *("http.method", "http", "_", "a..b", "\u2400", "\u00e9.b"),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.sampled_from([2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63 - 1, 2**63, -(2**63)]),
    st.floats(allow_nan=False),
    st.floats(allow_nan=False).map(NonFinite),
    st.text(max_size=8),
    st.sampled_from(["\ud800", "x\0y", "0" * 24, "6553f10000112233445566ff"]),
    st.binary(max_size=4),
    st.binary(max_size=4).map(Binary),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=12,
)
DATES = st.datetimes(timezones=st.none() | st.just(UTC))
ANYTHING = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(NAMES, VALUES),
        "_id": st.just("6553f10000112233445566ff") | SCALARS,
        "received_at": DATES,
        "attributes": st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), VALUES),
        "events": st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3), max_size=2),
    },
)


def outcome(make, *arguments):
    """What a call gives: a value, or that it fails and how."""
    try:
        return make(*arguments)
    except Exception as error:  # whatever it is, the twin must do the same
        return type(error).__name__, str(error)


@pytest.fixture(autouse=True)
def built():
    """There is nothing to compare without a core."""
    assert CORE is not None, "the native core was not built: is there a C compiler?"


@pytest.mark.parametrize("signal", Signal)
def test_bson_of_documents_is_that_of_the_twin(signal):
    """D4: the core writes every document, byte for byte as Python does."""

    @SLOW
    @given(requests(signal))
    def check(message):
        native, plain = shape.Memo(), shape.Memo()
        for document in documents(batch(signal, message)):
            made = CORE.bson(document, native.pieces, native)
            assert made == shape.in_python(document, plain)

    check()


@FUZZ
@given(st.lists(ANYTHING, max_size=3))
def test_bson_of_anything_is_that_of_the_twin(given_documents):
    """B40: whatever a document holds, the core writes what Python writes, or refuses it the same."""
    native, plain = shape.Memo(), shape.Memo()
    without_core = pytest.MonkeyPatch()
    for document in given_documents:
        found = outcome(shape.encode, document, native)
        with without_core.context() as patch:
            patch.setattr(shape, "_native", lambda *_: None)
            assert outcome(shape.encode, document, plain) == found


def test_bson_nests_no_deeper_than_python_lets_it():
    """B40: a document that is nested a million times is refused or written, never a crash."""
    value = leaf = []
    for _ in range(1_000_000):
        leaf.append([])
        leaf = leaf[0]
    document = {"_id": "6553f10000112233445566ff", "value": value, "attributes": {"a": value}}
    with pytest.raises(shape.Unfit):
        shape.encode(document, shape.Memo())
    while value:
        value = value.pop()


def test_a_large_document_goes_through_the_core():
    """D4: growing and the limit of a document's size are the same on both ways."""
    document = {"_id": "6553f10000112233445566ff", "message": "x" * 100_000}
    assert CORE.bson(document, {}, None) == shape.in_python(document, shape.Memo())
    document["message"] = "x" * (MAX_DOCUMENT_BYTES + 1)
    with pytest.raises(shape.Unfit, match="too_large"):
        shape.encode(document, shape.Memo())
    document["message"] = "x" * (65 << 20)  # more than the core wants to write
    assert CORE.bson(document, {}, None) is None


@pytest.mark.parametrize("signal", Signal)
def test_rows_of_documents_are_those_of_the_twin(signal):
    """D5: the core makes every row of a document, and of its trail, value for value as Python does."""

    @SLOW
    @given(requests(signal))
    def check(message):
        for document in documents(batch(signal, message)):
            steps = [(signal.value, document), (TRAIL, trail(signal, document))]
            for form, step in steps:
                if step is None:
                    continue
                row = CORE.row(step, rows.COLUMNS[form], "info_logs", MAX_DOCUMENT_BYTES)
                twin = rows.in_python[form](step, "info_logs")
                assert row in (None, twin)
                assert row is not None or step.get("time_unix_nano", 2**63) >= 2**63
                assert row is None or list(map(type, row)) == list(map(type, twin))

    check()


@FUZZ
@given(ANYTHING, st.sampled_from(sorted(rows.COLUMNS)))
def test_rows_of_anything_are_those_of_the_twin(document, form):
    """B40: whatever a document holds, it gets the row that Python makes, or is refused as well."""
    made = outcome(rows.row_of, form, document, "info_logs")
    assert made == outcome(rows.in_python[form], document, "info_logs")


@pytest.mark.parametrize(
    "call",
    [
        lambda core: core.bson([], {}, None),
        lambda core: core.bson({}, None, None),
        lambda core: core.row({}, [], "", 1),
        lambda core: core.row({"_id": "a"}, ((1, 2),), "", 1),
        lambda core: core.row({"_id": "a"}, (("i", None, "_id"),), "", 1),
        lambda core: core.row({}, ((ord("o"), None, []),), "", 1),
        lambda core: core.finish_spans({}, {}, b""),
        lambda core: core.finish_spans([None], {}, b""),
        lambda core: core.finish_spans([{"start_unix_nano": "late"}], {}, b""),
        lambda core: core.finish_spans([{"attributes": 1}], {}, b""),
        lambda core: core.finish_spans([{"trace_id": 1}], {}, b""),
        lambda core: core.finish_logs([{"time_unix_nano": -1}], {}, b"", 0, 0, None),
        lambda core: core.finish_logs([{"attributes": []}], {}, b"", 0, 0, None),
        lambda core: core.finish_setup(None, None, None, (), None, "", {"a": ()}, {}),
    ],
)
def test_wrong_arguments_are_errors(call):
    """B40: the core looks at every type before it trusts it."""
    with pytest.raises((TypeError, ValueError, OverflowError)):
        call(CORE)


def test_dates_are_those_of_the_nanoseconds():
    """D4: `start` is stored as the time it is read back from."""
    document = {
        "_id": "6553f10000112233445566ff",
        "start_unix_nano": 1_700_000_000_123_999_999,
        "start": datetime(2023, 11, 14, 22, 13, 20, 123999, UTC),
        "received_at": datetime(2023, 11, 14, 22, 13, 21, 1000, UTC),
    }
    assert CORE.bson(document, {}, None) == shape.in_python(document, shape.Memo())


def test_a_field_that_python_cannot_encode_refuses_its_document():
    """D4: an object of anybody's is an error of that document, told by its reason."""
    document = {"_id": "6553f10000112233445566ff", "attributes": {"a": SimpleNamespace()}}
    with pytest.raises(shape.Unfit, match="cannot_encode"):
        shape.encode(document, shape.Memo())
