"""Go's durations, read and printed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.config.durations import parse, text_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("5s", 5.0),
        ("+5s", 5.0),
        ("-5s", -5.0),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        ("1h2m3.5s", 3723.5),
        (".5s", 0.5),
        ("5.s", 5.0),
        ("200ms", 0.2),
        ("7us", 0.000007),
        ("7ns", 0.000000007),
    ],
)
def test_parse(text, seconds):
    """Repeated number and unit add up to seconds."""
    assert parse(text) == seconds


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("5", 'time: missing unit in duration "5"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("1 s", 'time: unknown unit " s" in duration "1 s"'),
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("s", 'time: invalid duration "s"'),
        (".s", 'time: invalid duration ".s"'),
        ("9999999999h", 'time: invalid duration "9999999999h"'),
    ],
)
def test_errors(text, problem):
    """What is no duration is refused with Go's text."""
    with pytest.raises(ValueError, match="time: ") as caught:
        parse(text)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (5, "5s"),
        (90, "1m30s"),
        (3600, "1h0m0s"),
        (0.2, "200ms"),
        (0.0000015, "1.5us"),
        (1e-9, "1ns"),
        (-1.5, "-1.5s"),
        (61.25, "1m1.25s"),
    ],
)
def test_text_of(seconds, text):
    """A duration is printed as Go prints it."""
    assert text_of(seconds) == text


@given(st.integers(-(10**15), 10**15))
def test_printed_durations_read_back(nanos):
    """What is printed means the same when it is read."""
    assert round(parse(text_of(nanos / 1e9)) * 1e9) == nanos
