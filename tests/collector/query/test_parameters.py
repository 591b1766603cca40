"""From (name, value) pairs to a query, or to one refusal that names the parameter and the fix."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.model import Signal
from collector.query.parameters import LOG_PARAMETERS, BadParameter, log_query
from collector.stores.base import Query
from tests.traces import FIRST, T0

HOUR = 3600 * 10**9


def ask(*pairs, max_rows=5000):
    return log_query(pairs, now_unix_nano=T0, max_rows=max_rows)


def test_no_parameters_ask_for_the_newest():
    """Without parameters: the newest hundred records."""
    assert ask() == Query(signal=Signal.LOGS, newest_first=True, limit=100)


def test_every_parameter():
    """Each parameter lands in its field of the query, as text where it is text."""
    assert ask(
        ("correlation_id", "c"),
        ("user_id", "u"),
        ("trace_id", FIRST.upper()),
        ("level", "Error"),
        ("service", "s"),
        ("event", "order.opened"),
        ("since", "1h30m"),
        ("until", "2025-10-03T10:30:15.123456"),
        ("where", "a.b=1"),
        ("where", "$where={'$ne':1}=2"),
        ("text", "(a+)+$"),
        ("order", "oldest"),
        ("limit", "7"),
        ("cursor", f"{T0}.{'0a' * 12}"),
    ) == Query(
        signal=Signal.LOGS,
        trace_ids=(FIRST,),
        context={"correlation_id": "c", "user_id": "u"},
        min_severity=17,
        service="s",
        name="order.opened",
        since_unix_nano=T0 - HOUR * 3 // 2,
        until_unix_nano=T0 + 456_000,
        where=(("a.b", "1"), ("$where", "{'$ne':1}=2")),
        text="(a+)+$",
        newest_first=False,
        limit=7,
        after=(T0, "0a" * 12),
    )


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("15m", HOUR // 4),
        ("7d", 168 * HOUR),
        ("1.5h", HOUR * 3 // 2),
        ("250ms", 250_000_000),
        ("2w", 336 * HOUR),
    ],
)
def test_ages(text, ago):
    """Ages count back from now, in units from milliseconds to weeks."""
    assert ask(("since", text)).since_unix_nano == T0 - ago


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("2025-10-03T10:30", 1759487400 * 10**9),
        ("2025-10-03T12:30:15.123+02:00", T0),
        ("2025-10-03T10:30:15.123Z", T0),
        ("2025-10-03", 1759449600 * 10**9),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text, nanos):
    """A time without a zone is UTC, whatever the machine's zone is."""
    assert ask(("until", text)).until_unix_nano == nanos


LEVELS = {
    "debug": None,
    "info": 9,
    "WARN": 13,
    "warning": 13,
    "error": 17,
    "critical": 21,
    "fatal": 21,
}


@pytest.mark.parametrize(("text", "number"), LEVELS.items())
def test_levels_are_minimums(text, number):
    """A level means itself and everything above; debug is no condition."""
    assert ask(("level", text)).min_severity == number


LIMIT = "write a whole number from 1 to 5000; page with cursor"
TIME = "write an age such as 15m, 1h, 7d, or a time such as 2026-11-22T10:00"
CURSOR = "not a cursor; use next of the page before, unchanged"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        *[("limit", bad, LIMIT) for bad in ("0", "-1", "5001", "1e3", "NaN", "inf", "٣", "9" * 30)],
        *[
            ("cursor", bad, CURSOR)
            for bad in ("x", "1", f"1.{'g' * 24}", f"-1.{'0' * 24}", f"{2**64}.{'0' * 24}")
        ],
        *[
            (name, bad, TIME)
            for name in ("since", "until")
            for bad in ("yesterday", "1", "NaN", "1y", "-1h")
        ],
        ("since", "1969-12-31", "write a time between 1970 and 2262"),
        ("until", "9999-12-31", "write a time between 1970 and 2262"),
        ("level", "loud", "write debug, info, warning, error or critical"),
        ("order", "random", "write newest or oldest"),
        ("trace_id", "xyz", "write 32 hex digits, a UUID or a W3C traceparent"),
        ("where", "novalue", "write key=value, like http.response.status_code=500"),
        ("where", "=x", "write key=value, like http.response.status_code=500"),
        ("service", "", "empty; leave it out or give a value"),
        ("text", "x" * 1025, "longer than 1024 characters"),
        ("servce", "x", "unknown parameter; did you mean service?"),
    ],
)
def test_a_bad_parameter_is_named_with_its_fix(name, value, reason):
    """Every refusal names the parameter and says what to write (B55)."""
    with pytest.raises(BadParameter) as caught:
        ask((name, value))
    assert (caught.value.parameter, caught.value.reason) == (name, reason)


def test_repeated_and_contradictory_parameters():
    """Only where may repeat, not without end; since must lie before until."""
    for pairs, name in (
        ([("service", "a"), ("service", "b")], "service"),
        ([("where", "a=b")] * 33, "where"),
        ([("since", "1h"), ("until", "2h")], "since"),
    ):
        with pytest.raises(BadParameter) as caught:
            ask(*pairs)
        assert caught.value.parameter == name


@given(st.lists(st.tuples(st.sampled_from([*LOG_PARAMETERS, "x", "$ne"]), st.text(max_size=30))))
def test_any_text_is_a_query_or_a_refusal(pairs):
    """Whatever is asked, the result is a query or a BadParameter, nothing else."""
    try:
        query = ask(*pairs)
    except BadParameter:
        pass
    else:
        assert 1 <= query.limit <= 5000
