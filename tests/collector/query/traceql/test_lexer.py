"""Text to tokens: every kind, every escape, and where the wrong ones are."""

import pytest

from collector.query.traceql.errors import ParseError
from collector.query.traceql.lexer import tokens


def read(text):
    """Kind and value of each token but the end."""
    return [(token.kind, token.value) for token in tokens(text)[:-1]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "1 .5 1.5 1e3 10.",
            [("int", 1), ("float", 0.5), ("float", 1.5), ("float", 1e3), ("float", 10.0)],
        ),
        ("1h30m", [("duration", 5_400_000_000_000)]),
        (
            "1.5s 100us 2d 1w 1y 3ns .5ms",
            [
                ("duration", 1_500_000_000),
                ("duration", 100_000),
                ("duration", 172_800_000_000_000),
                ("duration", 604_800_000_000_000),
                ("duration", 31_536_000_000_000_000),
                ("duration", 3),
                ("duration", 500_000),
            ],
        ),
        (r'"a\"\\\n\x41\u00e4\U0001f600\101"', [("string", 'a"\\\nAä😀A')]),
        (r'"\xc3\xa4"', [("string", "ä")]),
        ('`a\\n""`', [("string", 'a\\n""')]),
        (".a-b .a/b .a*b", [("attribute", (None, name, False)) for name in ("a-b", "a/b", "a*b")]),
        ("span.a=1", [("attribute", ("span", "a", False)), ("op", "="), ("int", 1)]),
        ('span."my attr"', [("attribute", ("span", "my attr", False))]),
        ('.a."b c".d', [("attribute", (None, "a.b c.d", False))]),
        (
            "parent.a parent.span.a parent.resource.b",
            [
                ("attribute", (None, "a", True)),
                ("attribute", ("span", "a", True)),
                ("attribute", ("resource", "b", True)),
            ],
        ),
        ("event:name trace:id", [("word", "event:name"), ("word", "trace:id")]),
        (".parent.x", [("attribute", (None, "parent.x", False))]),
        ("&>>!<<!~=~&&||", [("op", op) for op in ("&>>", "!<<", "!~", "=~", "&&", "||")]),
        (".a=-1", [("attribute", (None, "a", False)), ("op", "="), ("op", "-"), ("int", 1)]),
    ],
)
def test_tokens_are_read_with_their_values(text, found):
    """Numbers, durations, both kinds of strings, attributes with quoted parts, operators."""
    assert read(text) == found


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ('{.a="x', (1, 5), 'string without its closing "'),
        ("{.a=`x", (1, 5), "string without its closing `"),
        ('{.a="x\ny"}', (1, 5), 'string without its closing "'),
        (r'{.a="\q"}', (1, 6), "unknown escape"),
        (r'{.a="\ud800"}', (1, 6), "unknown escape"),
        (r'{.a="\xff"}', (1, 5), "not UTF-8"),
        ("{\n . }", (2, 3), "no name"),
        ("{ span. }", (1, 8), "no name"),
        ("{ .a = 5x }", (1, 8), "a number or a duration"),
        ("{ .a = 1 s }", (1, 10), "unexpected s"),
        ("{ § }", (1, 3), "unexpected '§'"),
        ("{ .a = 1e999 }", (1, 8), "too large"),
        ("{ .a = " + "9" * 500 + " }", (1, 8), "too large"),
        ("{ .a > " + "9" * 5000 + "s }", (1, 8), "so many digits"),
    ],
)
def test_what_is_no_token_is_refused_with_its_place(text, place, reason):
    """Line and column, counted from 1, and what is wrong there."""
    from collector.query.traceql.parser import parse

    with pytest.raises(ParseError) as caught:
        parse(text)
    assert (caught.value.line, caught.value.column) == place
    assert reason in caught.value.reason
    assert f"parse error at line {caught.value.line}, col {caught.value.column}: " in str(
        caught.value
    )
