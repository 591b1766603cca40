"""Tokens to trees: precedence, what is refused and why, bounds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.query.traceql.cursor import MAX_DEPTH, MAX_NESTING, MAX_NODES
from collector.query.traceql.errors import ParseError, Unsupported
from collector.query.traceql.parser import MAX_TEXT, parse
from collector.query.traceql.tree import (
    Attribute,
    Binary,
    Filter,
    Intrinsic,
    Literal,
    Metrics,
    Query,
    SpansetOperation,
    Type,
    Unary,
)

A, B, C = (Attribute(None, name) for name in "abc")


def condition(text):
    """The expression of `{ text }`."""
    (found,) = parse(f"{{ {text} }}").stages
    return found.expression


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        (".a || .b && .c", Binary("&&", Binary("||", A, B), C)),
        (".a && .b || .c", Binary("||", Binary("&&", A, B), C)),
        ("!.a && .b", Binary("&&", Unary("!", A), B)),
        ("!.a = .b", Binary("=", Unary("!", A), B)),
        ("-.a + .b = 1", Binary("=", Binary("+", Unary("-", A), B), Literal(Type.INT, 1))),
        ("-.a * .b = 1", Binary("=", Unary("-", Binary("*", A, B)), Literal(Type.INT, 1))),
        (
            ".a - .b - .c = 1",
            Binary("=", Binary("-", Binary("-", A, B), C), Literal(Type.INT, 1)),
        ),
        (
            ".a ^ .b ^ .c = 1",
            Binary("=", Binary("^", A, Binary("^", B, C)), Literal(Type.INT, 1)),
        ),
        ("duration > 1s", Binary(">", Intrinsic("duration"), Literal(Type.DURATION, 10**9))),
        ("status = error", Binary("=", Intrinsic("status"), Literal(Type.STATUS, "error"))),
        (".a = maxInt", Binary("=", A, Literal(Type.INT, 2**63 - 1))),
    ],
)
def test_precedence_is_that_of_the_reference(text, tree):
    """`&&` and `||` on one level, left to right; then comparison, + -, !, * / %, ^ (right)."""
    assert condition(text) == tree


def test_structural_operators_bind_tighter_than_logical_ones():
    """`{a} || {b} >> {c} && {d}` is `({a} || ({b} >> {c})) && {d}`."""
    a, b, c, d = (Filter(Attribute(None, name)) for name in "abcd")
    (found,) = parse("{.a} || {.b} >> {.c} && {.d}").stages
    expected = SpansetOperation("||", a, SpansetOperation(">>", b, c))
    assert found == SpansetOperation("&&", expected, d)


def test_a_metrics_query_is_one_tree():
    """Function, measured field, quantiles, labels, hints."""
    found = parse("{ } | quantile_over_time(duration, .5, .9) by (name) with (exemplars=true)")
    metrics = Metrics("quantile_over_time", Intrinsic("duration"), (0.5, 0.9), (Intrinsic("name"),))
    assert found == Query(
        (Filter(),),
        metrics,
        hints=(("exemplars", Literal(Type.BOOL, True)),),
    )


WRONG = [
    ("", "a query begins with"),
    ("count() > 2", "a query begins with"),
    ("{", "an attribute, an intrinsic or a value"),
    ("{name=", "unexpected end of the query"),
    ("{ .a } }", "an operator, | or the end"),
    ("{ .a } {", "an operator, | or the end"),
    ("{ .a = 1", "} was expected"),
    ("{ foo = 1 }", "write .foo or span.foo"),
    ("{ } |", "a stage such as"),
    ("{ } | nothing()", "no such function"),
    ("{ } | count()", "a comparison such as"),
    ("{ } | count(.a) > 1", ") was expected"),
    ("{ } | by()", "an attribute, an intrinsic"),
    ("{ } | select(1)", "an attribute, an intrinsic"),
    ("{ } | rate(.a)", ") was expected"),
    ("{ } | quantile_over_time(duration)", "a quantile from 0 to 1"),
    ("{ } | quantile_over_time(duration, 2)", "a quantile from 0 to 1"),
    ("{ } | rate() | topk(0)", "keeps nothing"),
    ("{ } | rate() | topk(2.5)", "a whole number"),
    ("{ } | rate() | by(.a)", "topk or bottomk"),
    ("{ } | compare({ .a }, 5, 2, 1)", "ends before it begins"),
    ("{ } | compare({ .a } && { .b })", ") was expected"),
    ("{ } with (1)", "the name of a hint"),
    ('{ duration = "x" }', "must operate on the same type"),
    ("{ kind > 3 }", "does not take these types"),
    ("{ kind = 3 }", "must operate on the same type"),
    ("{ status > ok }", "does not take these types"),
    ("{ .a =~ 5 }", "takes a string"),
    ("{ .a =~ .b }", "takes a string"),
    ('{ kind =~ "x" }', "only text matches"),
    ('{ .a =~ "(" }', "not a regular expression"),
    ('{ .a =~ "(?=x)" }', "not a regular expression"),
    ('{ .a =~ "' + "x" * 5000 + '" }', "at most 4096 characters"),
    ('{ .a =~ "(((a{100}){100}){100})" }', "not a regular expression"),
    ("{ " + " || ".join(['.a =~ "' + "x" * 4000 + '"'] * 5) + " }", "more than 16384 characters"),
    ("{ " + " || ".join(['.a =~ "x"'] * 21) + " }", "more than 20 regular expressions"),
    ("{ 1 }", "must be true or false"),
    ("{ duration }", "must be true or false"),
    ('{ "a" + "b" = "ab" }', "does not take these types"),
    ("{ !name }", "the type does not fit"),
    ("{ .a < nil }", "does not take these types"),
    ("{ .a = 9223372036854775808 }", "outside of 64 bits"),
    ("{ } | avg(name) > 1", "takes numbers"),
    ('{ } | count() > "x"', "a number or a duration is compared"),
    ("{ } | max_over_time(name)", "measures numbers"),
    ("{ .a = \ud800 }", "not valid Unicode"),
    ("{ .a }" + " " * MAX_TEXT, "characters"),
    ("(" * 50 + "{ }" + ")" * 50, f"more than {MAX_NESTING} levels"),
    ("{ " + "(" * 1000 + ".a" + ")" * 1000 + " }", f"more than {MAX_NESTING} levels"),
    ("{ " + "!" * 1000 + ".a }", f"more than {MAX_NESTING} levels"),
    ("{ .a = " + "2 ^ " * 1000 + "1 }", f"more than {MAX_NESTING} levels"),
    ("{ " + " || ".join([".a"] * 1000) + " }", f"more than {MAX_DEPTH} operators"),
    (" && ".join(["{ }"] * 1000), f"more than {MAX_DEPTH} operators"),
    ("{ } | select(" + ", ".join([".a"] * 5000) + ")", f"more than {MAX_NODES} parts"),
]


@pytest.mark.parametrize(("text", "reason"), WRONG, ids=[text[:40] for text, _ in WRONG])
def test_a_wrong_query_is_refused_with_what_was_expected(text, reason):
    """Every refusal says what is wrong; bounds hold before anything is built."""
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("text", "column", "construct"),
    [
        ("{ parent.x = 1 }", 3, "parent.x (attributes of the parent span)"),
        ("{ parent.span.x = 1 }", 3, "parent.span.x (attributes of the parent span)"),
        ("{ parent = nil }", 3, "parent"),
        ("{ } | rate() > 5", 14, "a filter on the result of a metrics function"),
        ("({ } | rate()) + ({ } | rate())", 8, "arithmetic between metrics"),
        ("{ } | rate() + 1", 14, "arithmetic between metrics"),
        ("({ } | count()) > ({ } | count())", 15, "a comparison of pipelines as numbers"),
    ],
)
def test_what_is_not_answered_is_refused_by_its_name(text, column, construct):
    """The rest of the language: known, and said to be missing."""
    with pytest.raises(Unsupported) as caught:
        parse(text)
    assert (caught.value.column, caught.value.reason) == (column, f"not supported: {construct}")


PIECES = st.sampled_from([
    "{", "}", "(", ")", "|", "&&", "||", ">>", "&>", "!<", "~", "=", "!=", "=~", "<", ",", "-", "!", "^",
    "*", ".a", "span.x", "parent.y", "name", "duration", "status", "error", "nil", "true", "1", "0.5",
    "1h", '"x"', "`(`", "by", "count", "avg", "select", "coalesce", "rate", "quantile_over_time",
    "compare", "topk", "with", "minInt", "event:name", "nestedSetParent", "\n",
])  # fmt: skip


@given(st.text(max_size=60) | st.lists(PIECES, max_size=25).map(" ".join))
@settings(max_examples=1500, deadline=None)
def test_any_text_parses_or_is_a_parse_error(text):
    """Nothing else is ever raised."""
    place = None
    try:
        parse(text)
    except ParseError as bad:
        place = bad.line, bad.column
    assert place is None or (place[0] >= 1 and 1 <= place[1] <= len(text) + 1)
