"""The loops over attributes: compiled and in Python they say the same."""

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry import _loops, _records, _values

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

needs_core = pytest.mark.skipif(_loops.core is None, reason="no C compiler when this was installed")


@needs_core
@settings(deadline=None)
@given(mappings, st.dictionaries(names, st.booleans()), st.sets(texts), st.booleans())
def test_what_redaction_has_to_look_at(mapping, actions, clean, dull):
    """The same names in the same order."""
    assert _loops.core.unsettled(mapping, actions, clean, dull) == _loops.unsettled(
        mapping, actions, clean, dull
    )


@needs_core
def test_every_sign_in_a_short_text_and_in_an_id():
    """Which signs make a text worth a look, one by one."""
    for code in (*range(256), 0x20AC, 0xD800):
        for text in (chr(code), f"abc{chr(code)}", "abcdef0123456789"[:-1] + chr(code)):
            mapping = {"n": text}
            compiled = _loops.core.unsettled(mapping, {"n": False}, set(), True)
            assert compiled == _loops.unsettled(mapping, {"n": False}, set(), True), (code, text)


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

    compiled = _loops.core.weigh(mapping, weigher(seen[0]))
    assert compiled == _loops.weigh(mapping, weigher(seen[1]))
    assert seen[0] == seen[1]


@needs_core
@settings(deadline=None)
@given(mappings, st.frozensets(names))
def test_the_others(mapping, known):
    """The same pairs in the same order."""
    assert _loops.core.others(mapping, known) == _loops.others(mapping, known)
    assert list(_loops.core.others(mapping, known) or ()) == [n for n in mapping if n not in known]


def test_what_is_known_needs_no_look():
    """Each way to be settled, and each way not to be."""
    actions = {"skip": True, "scan": False}
    settled = {"skip": "x@y.example", "scan": "ORDER-12345"}
    assert _loops.fast_unsettled(settled, actions, set(), True) is None
    assert _loops.fast_unsettled({"scan": 1.5}, actions, set(), False) is None
    assert _loops.fast_unsettled({"scan": "seen"}, actions, {"seen"}, False) is None
    assert _loops.fast_unsettled({"scan": "0af7651916cd43dd"}, actions, set(), True) is None
    assert _loops.fast_unsettled({"scan": {"scan": 1, "skip": "x"}}, actions, set(), True) is None
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
        assert _loops.fast_unsettled({"scan": open_value}, actions, set(), True) == ["scan"]
    assert _loops.fast_unsettled({"scan": "ORDER-12345"}, actions, set(), False) == ["scan"]
    assert _loops.fast_unsettled({"new": 1, "skip": 2}, actions, set(), True) == ["new"]


@needs_core
@pytest.mark.parametrize("bad", [1, b"x", "x", None])
def test_a_wrong_call_is_an_error(bad):
    """The compiled loops check what they are given."""
    with pytest.raises(TypeError):
        _loops.core.weigh(bad, len)
    with pytest.raises(TypeError):
        _loops.core.attributes(bad, 1, len)
    with pytest.raises(TypeError):
        _loops.core.unsettled(bad, {}, set(), True)
    with pytest.raises(TypeError):
        _loops.core.unsettled({}, {}, bad, True)
    with pytest.raises(TypeError):
        _loops.core.others(bad, frozenset())
    with pytest.raises(TypeError):
        _loops.core.others({}, bad)
    with pytest.raises(TypeError):
        _loops.core.lines((bad,), len, len, len)
    with pytest.raises(TypeError):
        _loops.core.lines(bad, len, len, len)
    with pytest.raises((TypeError, AttributeError)):
        _loops.core.spans((bad,), len, len, len, len)
    with pytest.raises(TypeError):
        _loops.core.pending_lines(bad, {}, set(), True, {})
    with pytest.raises(TypeError):
        _loops.core.pending_spans((), {}, bad, True, {})
    assert _loops.core.pending_spans((bad,), {}, set(), True, {}) == [0]
    assert _loops.core.pending_lines((bad,), {}, set(), True, {}) == [0]


@needs_core
def test_a_pair_must_be_bytes():
    """What the callback gives is checked; None leaves the pair out."""
    assert _loops.core.attributes({"a": {1}}, 1, lambda *_: None) == b""
    assert _loops.core.attributes({"a": {1}}, 1, lambda *_: b"xy") == b"\x01\x02xy"
    with pytest.raises(TypeError):
        _loops.core.attributes({"a": {1}}, 1, lambda *_: "text")


@needs_core
def test_an_error_in_a_callback_comes_through():
    """Nothing is made up, and nothing is swallowed."""

    def fail(*_):
        raise LookupError("no")

    with pytest.raises(LookupError):
        _loops.core.attributes({"a": {1}}, 1, fail)
    with pytest.raises(LookupError):
        _loops.core.weigh({"a": []}, fail)


@needs_core
@settings(deadline=None)
@given(mappings | values)
def test_what_is_plain(mapping):
    """The same answer; nothing that needs cleaning is plain."""
    found = _loops.core.plain(mapping)
    assert found == _loops.plain(mapping)
    if found:
        assert _values.fields(mapping) == mapping


@needs_core
@pytest.mark.parametrize("look", [_loops.plain, getattr(_loops.core, "plain", None)])
def test_how_much_is_plain(look):
    """128 pairs, texts of 1,024 signs, numbers of 64 bits; a None is told apart."""
    usual = {"n": 1, "f": 1.5, "b": True, "s": "x" * 1024, "low": -(2**63)}
    assert look(usual) == _loops.PLAIN
    assert look(usual | {"none": None}) == 1
    assert look({f"k{n}": n for n in range(128)}) == _loops.PLAIN
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
    found = _records.fields(record)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_records, "_plain_fields", None)
        slowly = _records.fields(record)
    assert list(map(repr, found.items())) == list(map(repr, slowly.items()))


@needs_core
def test_the_usual_fields_are_not_left_to_python():
    known = {"user_id": "user.id"}
    given = {"msg": "m", "n": 1, "f": 1.5, "b": True, "none": None, "user_id": "u", "s": "x" * 1024}
    assert _loops.core.fields(given, frozenset(("msg",)), known) == {
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
        {"l": []},
        {"user_id": 7},
        {7: 1},
    ):
        assert _loops.core.fields(other, frozenset(("msg",)), known) is None
    assert _loops.core.fields({f"k{n}": n for n in range(65)}, frozenset(), known) is None
    assert _loops.core.fields({"user_id": None}, frozenset(), known) == {}
