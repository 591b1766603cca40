"""A tree that is printed and parsed again is the same tree."""

import pytest
from hypothesis import given, settings

from collector.query.traceql import printer
from collector.query.traceql.parser import parse
from tests.collector.query.traceql import trees


@given(trees.queries())
@settings(max_examples=400, deadline=None)
def test_any_printed_tree_parses_to_itself(tree):
    """Print, parse: the same tree, whatever its names, texts, numbers and operators."""
    assert parse(printer.query(tree)) == tree


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("{}", "{ }"),
        ("{.a=1||.b=2&&.c=3}", "{ .a = 1 || .b = 2 && .c = 3 }"),
        ("{.a=1||(.b=2&&.c=3)}", "{ .a = 1 || (.b = 2 && .c = 3) }"),
        ("{1+2*3=7}", "{ 1 + 2 * 3 = 7 }"),
        ("{(1+2)*3=9}", "{ (1 + 2) * 3 = 9 }"),
        ("{2^3^2=.x}", "{ 2 ^ 3 ^ 2 = .x }"),
        ("{(2^3)^2=.x}", "{ (2 ^ 3) ^ 2 = .x }"),
        ("{!.a&&.b}", "{ !.a && .b }"),
        ("{!(.a&&.b)}", "{ !(.a && .b) }"),
        ("{-.a *2>-1}", "{ -.a * 2 > -1 }"),
        ("{(-.a)*2>1}", "{ (-.a) * 2 > 1 }"),
        ("{.a -(-1)>1}", "{ .a - (-1) > 1 }"),
        ("{a}".replace("a", "span.`x`"), "{ span.`x` }"),
        ('{span."a b".c = `x"\\`}', '{ span."a b.c" = "x\\"\\\\" }'),
        ("{duration>90m1.5s}", "{ duration > 1h30m1.5s }"),
        ("{duration>2d && duration<1y}", "{ duration > 48h0m0s && duration < 8760h0m0s }"),
        ("{duration>1500us}", "{ duration > 1.5ms }"),
        ("{.x = minInt}", "{ .x = -9223372036854775808 }"),
        ("{.a}||{.b}>>{.c}", "{ .a } || { .b } >> { .c }"),
        ("({.a}||{.b})>>{.c}", "({ .a } || { .b }) >> { .c }"),
        ("({.a}|count()>1)&&{.b}", "({ .a } | count() > 1) && { .b }"),
        ("{}|avg(duration)>1s|by(.a)|coalesce()", "{ } | avg(duration) > 1s | by(.a) | coalesce()"),
        ("{}|rate()by(.a)|topk(5)with(x=1)", "{ } | rate() by (.a) | topk(5) with (x = 1)"),
        ("{}|quantile_over_time(duration,.5,1)", "{ } | quantile_over_time(duration, 0.5, 1.0)"),
        ("{}|compare({.a},5,1,2)", "{ } | compare({ .a }, 5, 1, 2)"),
    ],
)
def test_a_query_is_printed_as_the_reference_writes_it(text, printed):
    """Spaces around operators, parentheses only where precedence needs them, Go's durations."""
    assert printer.query(parse(text)) == printed
