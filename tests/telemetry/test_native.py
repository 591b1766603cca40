"""The loops over attributes: compiled and in Python they say the same."""

import ast
import gc
import logging
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry import _attribute_loops, _native, _values
from telemetry._context import ids as _random
from telemetry._logs import record as records

ids = st.text("0123456789abcdefABCDEF-", min_size=12, max_size=66)
texts = st.text(max_size=20) | ids | st.sampled_from(["a", "ORDER-12345", "x@y.example", "\ud800"])
values = st.one_of(
    texts,
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.binary(max_size=4),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["a", "order.id", "value", "password"]), texts | st.integers()),
    st.just({"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}}}}}),
)
names = st.sampled_from(["order.id", "n", "größe", "password"]) | st.text(max_size=8)
mappings = st.dictionaries(names, values, max_size=8)

needs_core = pytest.mark.skipif(
    _native.core is None, reason="no C compiler when this was installed"
)


@needs_core
@settings(deadline=None)
@given(mappings, st.dictionaries(names, st.booleans()), st.sets(texts), st.booleans())
def test_what_redaction_has_to_look_at(mapping, actions, clean, dull):
    """The same names in the same order."""
    assert _native.core.values_to_redact(
        mapping, actions, clean, dull
    ) == _attribute_loops.python_values_to_redact(mapping, actions, clean, dull)


@needs_core
def test_every_sign_in_a_short_text_and_in_an_id():
    """Which signs make a text worth a look, one by one."""
    for code in (*range(256), 0x20AC, 0xD800):
        for text in (chr(code), f"abc{chr(code)}", "abcdef0123456789"[:-1] + chr(code)):
            mapping = {"n": text}
            compiled = _native.core.values_to_redact(mapping, {"n": False}, set(), True)
            assert compiled == _attribute_loops.python_values_to_redact(
                mapping, {"n": False}, set(), True
            ), (code, text)


@needs_core
@settings(deadline=None)
@given(mappings)
def test_weights(mapping):
    """The same weight, and what is no plain value is weighed by somebody else."""
    seen = ([], [])

    def weigher(log):
        def weigh(value):
            log.append(value)
            return 7

        return weigh

    compiled = _native.core.estimated_bytes(mapping, weigher(seen[0]))
    assert compiled == _attribute_loops.python_estimated_bytes(mapping, weigher(seen[1]))
    assert seen[0] == seen[1]


@needs_core
@settings(deadline=None)
@given(mappings, st.frozensets(names))
def test_the_others(mapping, known):
    """The same pairs in the same order."""
    assert _native.core.without_keys(mapping, known) == _attribute_loops.python_without_keys(
        mapping, known
    )
    assert list(_native.core.without_keys(mapping, known) or ()) == [
        n for n in mapping if n not in known
    ]


def test_what_is_known_needs_no_look():
    """Each way to be settled, and each way not to be."""
    actions = {"skip": True, "scan": False}
    settled = {"skip": "x@y.example", "scan": "ORDER-12345"}
    assert _attribute_loops.values_to_redact(settled, actions, set(), True) is None
    assert _attribute_loops.values_to_redact({"scan": 1.5}, actions, set(), False) is None
    assert _attribute_loops.values_to_redact({"scan": "seen"}, actions, {"seen"}, False) is None
    assert (
        _attribute_loops.values_to_redact({"scan": "0af7651916cd43dd"}, actions, set(), True)
        is None
    )
    assert (
        _attribute_loops.values_to_redact({"scan": {"scan": 1, "skip": "x"}}, actions, set(), True)
        is None
    )
    nested = ({"scan": "x@y.example"}, {"scan": "a", "value": 1}, {"new": 1})
    for open_value in (
        *nested,
        "4111111111111111",
        "x@y.example",
        "ORDER-123456789",
        "a=b",
        ["a"],
        b"a",
        "\ud800",
    ):
        assert _attribute_loops.values_to_redact({"scan": open_value}, actions, set(), True) == [
            "scan"
        ]
    assert _attribute_loops.values_to_redact({"scan": "ORDER-12345"}, actions, set(), False) == [
        "scan"
    ]
    assert _attribute_loops.values_to_redact({"new": 1, "skip": 2}, actions, set(), True) == ["new"]


@needs_core
@pytest.mark.parametrize("bad", [1, b"x", "x", None])
def test_a_wrong_call_is_an_error(bad):
    """The compiled loops check what they are given."""
    with pytest.raises(TypeError):
        _native.core.estimated_bytes(bad, len)
    with pytest.raises(TypeError):
        _native.core.attributes(bad, 1, len)
    with pytest.raises(TypeError):
        _native.core.values_to_redact(bad, {}, set(), True)
    with pytest.raises(TypeError):
        _native.core.values_to_redact({}, {}, bad, True)
    with pytest.raises(TypeError):
        _native.core.without_keys(bad, frozenset())
    with pytest.raises(TypeError):
        _native.core.without_keys({}, bad)
    with pytest.raises(TypeError):
        _native.core.lines((bad,), len, len, len)
    with pytest.raises(TypeError):
        _native.core.lines(bad, len, len, len)
    with pytest.raises((TypeError, AttributeError)):
        _native.core.spans((bad,), len, len, len, len)
    with pytest.raises(TypeError):
        _native.core.pending_lines(bad, {}, set(), True, {})
    with pytest.raises(TypeError):
        _native.core.pending_spans((), {}, bad, True, {})
    assert _native.core.pending_spans((bad,), {}, set(), True, {}) == [0]
    assert _native.core.pending_lines((bad,), {}, set(), True, {}) == [0]


@needs_core
def test_a_pair_must_be_bytes():
    """What the callback gives is checked; None leaves the pair out."""
    assert _native.core.attributes({"a": {1}}, 1, lambda *_: None) == b""
    assert _native.core.attributes({"a": {1}}, 1, lambda *_: b"xy") == b"\x01\x02xy"
    with pytest.raises(TypeError):
        _native.core.attributes({"a": {1}}, 1, lambda *_: "text")


@needs_core
def test_an_error_in_a_callback_comes_through():
    """Nothing is made up, and nothing is swallowed."""

    def fail(*_):
        raise LookupError("no")

    with pytest.raises(LookupError):
        _native.core.attributes({"a": {1}}, 1, fail)
    with pytest.raises(LookupError):
        _native.core.estimated_bytes({"a": []}, fail)


@needs_core
@settings(deadline=None)
@given(mappings | values)
def test_what_is_plain(mapping):
    """The same answer; nothing that needs cleaning is plain."""
    found = _native.core.needs_no_cleaning(mapping)
    assert found == _attribute_loops.python_needs_no_cleaning(mapping)
    if found:
        assert _values.fields(mapping) == mapping


@needs_core
@pytest.mark.parametrize(
    "look",
    [_attribute_loops.python_needs_no_cleaning, getattr(_native.core, "needs_no_cleaning", None)],
)
def test_how_much_is_plain(look):
    """128 pairs, texts of 1,024 signs, numbers of 64 bits; a None is told apart."""
    usual = {"n": 1, "f": 1.5, "b": True, "s": "x" * 1024, "low": -(2**63)}
    assert look(usual) == _attribute_loops.PLAIN
    assert look(usual | {"none": None}) == 1
    assert look({f"k{n}": n for n in range(128)}) == _attribute_loops.PLAIN
    assert look({f"k{n}": n for n in range(129)}) == 0
    others = (
        {"s": "x" * 1025},
        {"s": "\u00fc"},
        {"n": 2**63},
        {"l": []},
        {"b": b""},
        {"": 1},
        {7: 1},
    )
    assert [look(usual | other) for other in others] == [0] * len(others)


record_names = names | st.sampled_from(
    ["user_id", "user.id", "correlation_id", "msg", "args", "levelname", "x" * 300]
)


@needs_core
@settings(deadline=None)
@given(st.dictionaries(record_names, values, max_size=8))
def test_the_fields_of_a_log_record(extra):
    """As in Python, in the same order; where the core leaves it to Python, it is Python."""
    record = logging.makeLogRecord(extra)
    found = records.fields(record)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_plain_fields", None)
        slowly = records.fields(record)
    assert list(map(repr, found.items())) == list(map(repr, slowly.items()))


@needs_core
def test_the_usual_fields_are_not_left_to_python():
    known = {"user_id": "user.id"}
    given = {"msg": "m", "n": 1, "f": 1.5, "b": True, "none": None, "user_id": "u", "s": "x" * 1024}
    assert _native.core.fields(given, frozenset(("msg",)), known) == {
        "n": 1,
        "f": 1.5,
        "b": True,
        "none": None,
        "user.id": "u",
        "s": "x" * 1024,
    }
    for other in (
        {"s": "x" * 1025},
        {"x" * 257: 1},
        {"user_id": "u" * 257},
        {"s": "ü"},
        {"n": 2**63},
        {"l": [object]},
        {"l": {7: 1}},
        {"l": [[1] * 64]},
        {"user_id": 7},
        {7: 1},
    ):
        assert _native.core.fields(other, frozenset(("msg",)), known) is None
    assert _native.core.fields({f"k{n}": n for n in range(65)}, frozenset(), known) is None
    assert _native.core.fields({"user_id": None}, frozenset(), known) == {}
    assert _native.core.fields({"l": [1, {"k": (2,)}]}, frozenset(), known) == {
        "l": [1, {"k": [2]}]
    }
    given = {"n": None, "user_id": "u", "m": 1}
    assert _native.core.fields(given, frozenset(), known, True) == {"user.id": "u", "m": 1}


nested = st.recursive(
    values,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(names | st.integers(), inner, max_size=4)
    ),
    max_leaves=90,
)


@needs_core
@settings(deadline=None)
@given(nested)
def test_a_copy_of_plain_values_is_what_cleaning_makes_of_them(value):
    """The same dicts and lists, new ones all the way down; or Python is asked."""
    copy = _native.core.copied(value)
    if copy is None:
        return
    assert repr(copy) == repr(
        _values.nested(_values._clean, value, _values.DEPTH, [_values.NODES], set())
    )
    assert not containers(copy) & containers(value)


def containers(value):
    if isinstance(value, dict):
        return {id(value)}.union(*map(containers, value.values()))
    if isinstance(value, list):
        return {id(value)}.union(*map(containers, value))
    return set()


@needs_core
def test_what_is_copied_and_what_is_left_to_python():
    """Sixty-four values in all, eight levels, nothing but plain values, no way round in a circle."""
    circle = []
    circle.append(circle)
    flat, deep = {f"k{n}": n for n in range(64)}, [[[[[[[[1]]]]]]]]
    for plain in ({}, [], flat, deep, {"a": [1, {"b": None}]}):
        assert _native.core.copied(plain) == plain
    assert _native.core.copied((1, (2,))) == [1, [2]]
    for other in (
        {**flat, "more": 1},
        [deep],
        circle,
        {1: 2},
        [b""],
        {"a": 2**64},
        "text",
        7,
        {1, 2},
    ):
        assert _native.core.copied(other) is None


@needs_core
def test_a_collector_of_garbage_that_changes_what_is_copied():
    """What a finalizer takes away in the middle of a copy is still there for it."""
    given = {f"k{n}": {"a": [n]} for n in range(60)}

    class Last:
        def __del__(self):
            for name in list(given)[1:]:
                given[name] = None

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(200):
            given.update({f"k{n}": {"a": [n]} for n in range(60)})
            cycle = [Last()]
            cycle.append(cycle)
            del cycle
            copy = _native.core.copied(given)
            assert copy is None or set(copy) == set(given)
            _native.core.estimated_bytes(given, len)
            _native.core.fields(given, frozenset(), {})
    finally:
        gc.set_threshold(*before)


@needs_core
def test_the_process_is_known_without_asking():
    """Also in a forked child, where libc says so."""
    read, write = os.pipe()
    assert _native.core.process_id() == os.getpid()
    child = os.fork()
    if child == 0:
        os.write(write, f"{_native.core.process_id() == os.getpid()}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"True"
    for end in (read, write):
        os.close(end)


def test_random_bits():
    """As many as are asked for, all of them used, never twice, and others in a forked child."""
    bits = _random.bits
    for count in (64, 128):
        found = [bits(count) for _ in range(2000)]
        assert len(set(found)) == 2000
        every, none = 0, (1 << count) - 1
        for number in found:
            every |= number
            none &= number
        assert (every, none) == ((1 << count) - 1, 0)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, f"{[bits(64) for _ in range(100)]}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = ast.literal_eval(os.read(read, 10_000).decode())
    assert not set(theirs) & {bits(64) for _ in range(100)}
    for end in (read, write):
        os.close(end)
