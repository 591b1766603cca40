"""The lexer: tokens with their places, and the sentence for what is none."""

import pytest

from collector.query.logql.errors import LimitError, ParseError
from collector.query.logql.lexer import MAX_LENGTH, place, tokens


def words(text):
    """Kind and text of each token but the last."""
    return [(token.kind, token.text) for token in tokens(text)[:-1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{a="b"}', [("{", "{"), ("name", "a"), ("=", "="), ("string", "b"), ("}", "}")]),
        (
            "|= |~ |> != !~ !> =~ ==",
            [(op, op) for op in ["|=", "|~", "|>", "!=", "!~", "!>", "=~", "=="]],
        ),
        (
            "5m 1h30m 1.5s 100us 2d",
            [("duration", word) for word in ["5m", "1h30m", "1.5s", "100us", "2d"]],
        ),
        ("10KB 1.5MiB 3b", [("size", "10KB"), ("size", "1.5MiB"), ("size", "3b")]),
        ("5 .5 1e3 2.", [("number", "5"), ("number", ".5"), ("number", "1e3"), ("number", "2.")]),
        ('"a\\n\\"\\x41\\101\\u00e9\\U0001F600"', [("string", 'a\n"AA\u00e9\U0001f600')]),
        ('"\\xc3\\xa9"', [("string", "\u00e9")]),
        ('`a\\n"\n`', [("string", 'a\\n"\n')]),
        ("a # a comment\n b", [("name", "a"), ("name", "b")]),
        ("--keep-empty", [("flag", "--keep-empty")]),
    ],
)
def test_a_text_becomes_tokens(text, expected):
    """Operators, literals with their units, both kinds of strings, flags and comments."""
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{a='b'}", "line 1, col 4: strings stand in double quotes or backticks"),
        ('{a="b', 'line 1, col 4: this string has no closing "'),
        ("{\n a=`b", "line 2, col 4: this string has no closing `"),
        ("{a.b}", "line 1, col 3: a label name has no dots"),
        ("5x", "line 1, col 1: this is no number, duration"),
        ("1.5.2", "line 1, col 1: this is no number, duration"),
        ("a ; b", "line 1, col 3: ';' is no part of LogQL"),
        ("a ! b", "line 1, col 3: a single ! means nothing"),
        ('"a\\qb"', r"line 1, col 3: \q is no escape"),
        ('"\\uD800"', r"line 1, col 2: \u is no escape"),
        ('"\\xff"', "line 1, col 1: the escapes of this string make no valid UTF-8"),
        ("a\ud800", "line 1, col 2: this character is no valid Unicode"),
    ],
)
def test_what_is_no_token_is_named_with_its_place(text, error):
    """Each fault has line, column and a sentence that says what to write."""
    with pytest.raises(ParseError) as caught:
        tokens(text)
    assert str(caught.value).startswith(f"parse error at {error}")


def test_a_text_that_is_too_long_is_not_looked_at():
    """A megabyte is refused with 422 before a single token is made."""
    with pytest.raises(LimitError, match=f"at most {MAX_LENGTH} are read") as caught:
        tokens("{" * 1_000_000)
    assert caught.value.status == 422


def test_columns_count_characters_from_one():
    """Line and column of a position, behind newlines and wide characters."""
    text = "a\n\u00e9\u00e9x"
    assert [place(text, index) for index in (0, 2, 4)] == [(1, 1), (2, 1), (2, 3)]
