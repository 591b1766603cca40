"""Attributes as maps, taking items out, and the ids of log records."""

import pytest

from collector.documents.build import documents
from collector.model import Signal
from collector.processors.shared.attribute_map import (
    Attributes,
    set_value,
    text_of,
    value_of,
)
from collector.processors.shared.record_identity import (
    Sieve,
    advanced,
    sift,
)
from tests.collector.processors.parts import batch, fill, logs

VALUES = {
    "text": "ü",
    "flag": True,
    "int": -(2**63),
    "float": 0.5,
    "bytes": b"\xff",
    "list": [1, "a", [None]],
    "map": {"a": {"b": 1}},
    "none": None,
    "empty": {},
    "nothing": [],
}


def record_attributes(message):
    return message.message.resource_logs[0].scope_logs[0].log_records[0].attributes


def test_attributes_are_a_dict_that_writes_through():
    """Every kind of value is read as it was written, and keys come and go in the message."""
    sent = logs({"attributes": {"old": 1}})
    view = Attributes(record_attributes(sent))
    view.update(VALUES)
    del view["old"]
    view["text"] = "new"
    assert dict(view) == {**VALUES, "text": "new"}
    assert [pair.key for pair in record_attributes(sent)] == list(VALUES)
    assert len(view) == len(VALUES)
    with pytest.raises(KeyError):
        del view["old"]
    with pytest.raises(KeyError):
        view["old"]


def test_a_key_that_occurs_twice_is_read_as_the_last_and_deleted_as_a_whole():
    """Attributes behave as the documents at rest do."""
    pairs = record_attributes(logs({"attributes": {"a": 1}}))
    fill(pairs, {"a": 2, "b": 3})
    view = Attributes(pairs)
    assert dict(view) == {"a": 2, "b": 3}
    del view["a"]
    assert dict(view) == {"b": 3}


@pytest.mark.parametrize("value", [object(), 2**63, "\ud800", {"a": {1}}])
def test_what_otlp_cannot_say_is_refused(value):
    """A wrong type, an int of 65 bits and lone surrogates raise and never reach a message."""
    pairs = record_attributes(logs({"attributes": {"a": 1}}))
    with pytest.raises((TypeError, ValueError)):
        set_value(pairs[0].value, value)


def test_depth_has_a_bound():
    """A value nested too deeply is refused when written and cut when read."""
    deep = 1
    for _ in range(100):
        deep = [deep]
    target = record_attributes(logs({"attributes": {"a": 1}}))[0].value
    with pytest.raises(ValueError, match="nested deeper than 64 levels"):
        set_value(target, deep)
    inner = target
    target.Clear()
    for _ in range(80):
        inner = inner.array_value.values.add()
    read = value_of(target)
    depth = 0
    while read:
        read, depth = read[0], depth + 1
    assert depth == 64


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (True, "true"),
        (3, "3"),
        (3.0, "3"),
        (0.5, "0.5"),
        (b"\x00\xff", "AP8="),
        (None, ""),
        ([1, "ü", None, b"\x00"], '[1,"ü",null,"AA=="]'),
        ({"a": {"b": True}}, '{"a":{"b":true}}'),
    ],
)
def test_values_as_text(value, text):
    """The text of a value is the OpenTelemetry Collector's."""
    assert text_of(value) == text


@pytest.mark.parametrize("kept", [[], [True], [False], [True, False, True, True, False, False]])
def test_sift_keeps_order(kept):
    """What is kept stays in its order, and the others are gone."""
    records = logs(*[{"body": str(n)} for n in range(len(kept))]).message
    found = records.resource_logs[0].scope_logs[0].log_records
    assert sift(found, kept) == kept.count(False)
    expected = [str(n) for n, keep in enumerate(kept) if keep]
    assert [record.body.string_value for record in found] == expected


def ids(message):
    return {document["message"]: document["_id"] for document in documents(message)}


def only(*wanted, **more):
    """Three records, and the batch with only some of them left."""
    sent = logs({"body": "a"}, {"body": "b"}, {"body": "c"}, **more)
    sieve = Sieve(sent)
    scope = sent.message.resource_logs[0].scope_logs[0]
    sieve.take_out(scope, [record.body.string_value in wanted for record in scope.log_records])
    sieve.finish()
    return sent


def test_records_that_are_left_get_the_same_ids_again():
    """The same request with the same records taken out is recognised as a resend."""
    assert ids(only("b", "c")) == ids(only("b", "c"))
    assert only("b", "c").wire is None


def test_two_selections_of_one_request_share_no_id():
    """Two pipelines that keep different records of a request never overwrite each other."""
    one, two, whole = ids(only("a")), ids(only("b", "c")), ids(only("a", "b", "c"))
    found = [*one.values(), *two.values(), *whole.values()]
    assert len(set(found)) == len(found)


def test_nothing_taken_out_changes_nothing():
    """A batch of which all is kept is still the request that came in."""
    sent = only("a", "b", "c", key=b"k" * 16)
    assert (sent.request.key, sent.wire is None) == (b"k" * 16, False)


def test_advanced_keeps_the_ids_of_the_whole():
    """A part of a request that begins at a record gives its records the ids that they have."""
    whole = logs(*[{"body": str(n)} for n in range(5)], key=b"\xff" * 16)
    part = logs({"body": "3"}, {"body": "4"}, key=b"\xff" * 16)
    part.request = advanced(part.request, 3)
    assert ids(part) == {body: ids(whole)[body] for body in ("3", "4")}


def test_empty_groups_go():
    """A resource without items is not handed on."""
    sent = batch(
        Signal.TRACES, [({"r": 1}, "one", [{"name": "a"}]), ({"r": 2}, "two", [{"name": "b"}])]
    )
    sieve = Sieve(sent)
    for group, kept in zip(sent.message.resource_spans, ([False], [True]), strict=True):
        sieve.take_out(group.scope_spans[0], kept)
    sieve.finish()
    assert sent.message == batch(Signal.TRACES, [({"r": 2}, "two", [{"name": "b"}])]).message
