"""The parser: trees of every construct, and line and column of what is none."""

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.query.logql import ParseError, QueryError, parse, parse_log, parse_selector, tree
from collector.query.logql.cursor import MAX_DEPTH, MAX_PARTS
from collector.query.logql.tree import (
    Binary,
    Both,
    Either,
    Extraction,
    Format,
    Grouping,
    LineFilter,
    LogQuery,
    LogRange,
    Matcher,
    Matching,
    NumberFilter,
    RangeAggregation,
    Scalar,
    Unwrap,
    Vector,
    VectorAggregation,
)

S = (Matcher("a", "=", "b"),)
MINUTE = 60 * 10**9
COUNT = RangeAggregation("count_over_time", LogRange(LogQuery(S), MINUTE))


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ('|= "x" or "y"', LineFilter("|=", ("x", "y"), (False, False))),
        ('!= ip("10.0.0.0/8")', LineFilter("!=", ("10.0.0.0/8",), (True,))),
        ('|> "a <_>"', LineFilter("|>", ("a <_>",), (False,))),
        ("| json", tree.Json()),
        ('| json x="a.b[0]", y', tree.Json((Extraction("x", "a.b[0]"), Extraction("y", "y")))),
        ("| logfmt --strict --keep-empty", tree.Logfmt(strict=True, keep_empty=True)),
        ('| logfmt a="b"', tree.Logfmt(fields=(Extraction("a", "b"),))),
        ("| regexp `(?P<n>.)`", tree.Regexp("(?P<n>.)")),
        ('| pattern "<a> <_>"', tree.Pattern("<a> <_>")),
        ("| unpack", tree.Unpack()),
        ("| decolorize", tree.Decolorize()),
        ('| line_format "{{.a}}"', tree.LineFormat("{{.a}}")),
        (
            '| label_format x=y, z="{{.a}}"',
            tree.LabelFormat((Format("x", "y", rename=True), Format("z", "{{.a}}", rename=False))),
        ),
        ('| drop a, b=~"x"', tree.Drop(("a", Matcher("b", "=~", "x")))),
        ("| keep a", tree.Keep(("a",))),
        ("| x > 5", NumberFilter("x", ">", 5, "number")),
        ("| x = -1.5", NumberFilter("x", "==", -1.5, "number")),
        ("| took >= 250ms", NumberFilter("took", ">=", 250_000_000, "duration")),
        ("| size < 1KiB", NumberFilter("size", "<", 1024, "size")),
        ('| addr = ip("10.0.0.1")', tree.IpFilter("addr", "=", "10.0.0.1")),
        (
            '| x="1" or y="2" and z="3"',
            Either(
                Matcher("x", "=", "1"), Both(Matcher("y", "=", "2"), Matcher("z", "=", "3"))
            ),
        ),
        (
            '| (x="1" or y="2"), z="3" w="4"',
            Both(
                Both(
                    Either(Matcher("x", "=", "1"), Matcher("y", "=", "2")), Matcher("z", "=", "3")
                ),
                Matcher("w", "=", "4"),
            ),
        ),
        ('| json="x"', Matcher("json", "=", "x")),
    ],
)  # fmt: skip
def test_a_stage_becomes_a_node(stage, expected):
    """Every stage of the language, labels that are called like stages among them (D5)."""
    assert parse('{a="b"}' + stage) == LogQuery(S, (expected,))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('count_over_time({a="b"}[1m])', COUNT),
        (
            'count_over_time({a="b"}[1m] |= "x")',
            RangeAggregation(
                "count_over_time",
                LogRange(LogQuery(S, (LineFilter("|=", ("x",), (False,)),)), MINUTE),
            ),
        ),
        ('count_over_time(({a="b"})[1m])', COUNT),
        (
            'rate({a="b"}[1m] offset -5m)',
            RangeAggregation("rate", LogRange(LogQuery(S), MINUTE, -5 * MINUTE)),
        ),
        (
            'quantile_over_time(0.9, {a="b"} | unwrap duration(x) | __error__="" [1m]) by (c)',
            RangeAggregation(
                "quantile_over_time",
                LogRange(
                    LogQuery(S), MINUTE, 0, Unwrap("x", "duration", (Matcher("__error__", "=", ""),))
                ),
                0.9,
                Grouping(without=False, labels=("c",)),
            ),
        ),
        (
            'sum by (x) (count_over_time({a="b"}[1m]))',
            VectorAggregation("sum", COUNT, None, Grouping(without=False, labels=("x",))),
        ),
        (
            'topk(3, count_over_time({a="b"}[1m])) without (x)',
            VectorAggregation("topk", COUNT, 3, Grouping(without=True, labels=("x",))),
        ),
        ("vector(1) + vector(2)", Binary("+", Vector(1), Vector(2))),
        ("1 + 2 * 3", Binary("+", Scalar(1), Binary("*", Scalar(2), Scalar(3)))),
        ("2 ^ 3 ^ 4", Binary("^", Scalar(2), Binary("^", Scalar(3), Scalar(4)))),
        ("1 - 2 - 3", Binary("-", Binary("-", Scalar(1), Scalar(2)), Scalar(3))),
        ("1 > bool -2", Binary(">", Scalar(1), Scalar(-2), returns_bool=True)),
        (
            "vector(1) or vector(2) and vector(3) > vector(4)",
            Binary(
                "or", Vector(1), Binary("and", Vector(2), Binary(">", Vector(3), Vector(4)))
            ),
        ),
        (
            "vector(1) / on(a, b) group_left(c) vector(2)",
            Binary("/", Vector(1), Vector(2), matching=Matching(True, ("a", "b"), "left", ("c",))),
        ),
        (
            "vector(1) / ignoring(a) group_right (vector(2))",
            Binary("/", Vector(1), Vector(2), matching=Matching(False, ("a",), "right")),
        ),
        (
            'label_replace(vector(1), "a", "$1", "b", "(.*)")',
            tree.LabelReplace(Vector(1), "a", "$1", "b", "(.*)"),
        ),
    ],
)  # fmt: skip
def test_a_metric_query_becomes_a_tree(text, expected):
    """Ranges, groupings on both sides, precedence, matching and functions (D5)."""
    assert parse(text) == expected


REFUSED = [
    ("", "line 1, col 1: the query is empty"),
    ("{", "line 1, col 2: expected a label name or `}`, found the end of the query"),
    ('{a="b"', "line 1, col 7: expected `}` or `,`, found the end"),
    ('{a="b",}', "line 1, col 8: expected a label name, found `}`"),
    ("{}", "line 1, col 1: queries require at least one regexp or equality matcher"),
    ('{a=~".*", b!="c"}', "line 1, col 1: queries require at least one"),
    ('{a="b"}\n| foo', "line 2, col 3: `foo` is no stage"),
    ('{a="b"} | x > "3"', "line 1, col 15: a text cannot stand behind `>`"),
    ('{a="b"} | x =~ 3', "line 1, col 16: expected a string in double quotes"),
    ('{a="b"} | regexp "("', "line 1, col 18: RE2 does not take this"),
    ('{a="b"} | regexp "a"', "line 1, col 18: the expression names no group"),
    ('{a="b"} | pattern "<a><b>"', "line 1, col 19: <a> and <b> touch"),
    ('{a="b"} |> "<a>"', "line 1, col 12: a pattern that filters lines keeps nothing"),
    ('{a="b"} |~ ip("10.0.0.1")', "line 1, col 12: ip() stands behind |= or != only"),
    ('{a="b"} |= ip("x")', "line 1, col 15: ip() takes an address"),
    ('{a="b"} | line_format "{{"', "line 1, col 23: the template has {{ without }}"),
    ('{a="b"} | line_format "{{ range .x }}"', "line 1, col 23: templates do not support `range`"),
    ('{a="b"} | label_format a=b, a=c', "line 1, col 29: label_format sets a twice"),
    ('{a="b"} | json x="a["', "line 1, col 18: this is no JSON path"),
    ('{a="b"} | logfmt --loose', "line 1, col 18: logfmt has the flags"),
    ('{a="b"} | unwrap x', "line 1, col 19: `unwrap` stands only inside a range aggregation"),
    ('count_over_time({a="b"} | unwrap x [5m])', "line 1, col 1: invalid aggregation"),
    ('sum_over_time({a="b"}[5m])', "line 1, col 1: invalid aggregation sum_over_time without"),
    ('rate({a="b"})', "line 1, col 13: expected a range like [5m], found `)`"),
    ('rate({a="b"}[5m:1m])', "line 1, col 16: LogQL has no subqueries"),
    ('rate({a="b"}[0s])', "line 1, col 14: a range is longer than 0"),
    ('rate({a="b"}[5m]) by (x)', "line 1, col 19: rate takes no grouping"),
    ('raet({a="b"}[5m])', "line 1, col 1: `raet` is no function of LogQL; did you mean rate?"),
    ('variants(rate({a="b"}[5m]))', "line 1, col 1: variants() is not supported"),
    ("topk(0, vector(1))", "line 1, col 6: topk takes a whole number from 1"),
    ("topk(vector(1))", "line 1, col 6: topk takes a number first"),
    ("sum(1, vector(1))", "line 1, col 5: sum takes no number"),
    ("sort(vector(1)) by (x)", "line 1, col 1: sort takes no grouping"),
    ("1 and 2", "line 1, col 3: `and` joins series, and a number is none"),
    ("vector(1) + bool 2", "line 1, col 13: `bool` stands behind a comparison only"),
    ("vector(1) and on(a) group_left vector(2)", "line 1, col 21: `and` takes no group_left"),
    ('{a="b"} + 1', "line 1, col 9: expected an operator or the end of the query, found `+`"),
    ('1 + {a="b"}', "line 1, col 5: lines cannot be calculated with"),
    ("1e999", "line 1, col 1: this number is too large"),
    ("vector(5m)", "line 1, col 1: vector() takes a plain number"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "error"), REFUSED)
def test_what_is_no_query_is_named_with_its_place(text, error):
    """Half queries, unknown words and misuse: line, column and what to write instead (D5)."""
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"parse error at {error}")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "text",
    [
        "(" * 1000 + "1" + ")" * 1000,
        "sum(" * 1000,
        '{a="b"} | ' + "(" * 1000 + 'x="1"',
        "-" * 1000 + "1",
        "1" + "+1" * 5000,
        '{a="b"}' + '|= "x"' * 5000,
        "{" + ",".join(['a="b"'] * 5000) + "}",
        "1" + "^1" * 5000,
    ],
    ids=["parentheses", "calls", "filters", "signs", "sum", "stages", "matchers", "powers"],
)
def test_depth_and_size_are_bounded(text):
    """Nesting of a thousand and chains of thousands end with a parse error, not with the stack."""
    with pytest.raises(ParseError):
        parse(text)


def test_the_bounds_leave_room_for_real_queries():
    """Half of what is allowed parses: the bounds are no trap."""
    deep = MAX_DEPTH // 4
    assert parse("(" * deep + "1" + ")" * deep) == Scalar(1)
    assert isinstance(parse("1" + "+1" * (MAX_PARTS // 2)), Binary)


@pytest.mark.parametrize("expression", ["((a{1,1000}){1,1000}){1,1000}", "(a|b|c){1000}" * 300])
def test_an_expression_that_would_explode_is_refused(expression):
    """RE2 compiles within its memory or not at all."""
    with pytest.raises(ParseError, match=r"RE2 does not take this|has at most"):
        parse(f'{{a=~"{expression}"}}')


def test_a_caller_may_insist_on_one_kind():
    """A tail takes log queries only, `match[]` selectors only."""
    assert parse_log('{a="b"}') == LogQuery(S)
    assert parse_selector('{a="b"}') == S
    with pytest.raises(ParseError, match="only a log query"):
        parse_log("vector(1)")
    with pytest.raises(ParseError, match="end of the selector"):
        parse_selector('{a="b"} |= "x"')


WORDS = [
    "{", "}", "(", ")", "[", "]", "|", "|=", "!=", "=~", "=", "==", ",", '"x"', "`y`", "5", "5m",
    "10KB", "a", "json", "logfmt", "unwrap", "by", "sum", "rate", "topk", "or", "and", "bool", "on",
    "group_left", "line_format", "drop", "ip", "offset", "-", "+", "^", "#", "\n", "'", "\\", "{{",
    "quantile_over_time", "label_replace", "vector", "--strict", "<", "pattern", '"<a> <b>"',
]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join) | st.text(max_size=60))
def test_no_text_raises_anything_but_a_query_error(text):
    """Fuzz: any words and any characters parse or are refused in our own words."""
    with contextlib.suppress(QueryError):
        parse(text)


def test_a_broken_query_is_refused_wherever_it_breaks():
    """Every prefix of a long query, and the query with one character gone, never crash."""
    whole = (
        'topk(3, sum by (a, b) (rate({a="b", c=~"d.*"} |~ "x" or "y" | json u="a.b[0]" | logfmt '
        '| z >= 1.5s or (w="q", v!=3KB) | line_format "{{ .a | trunc 5 }}" | label_format k=l '
        '| drop m, n="o" | unwrap duration(p) | __error__="" [5m] offset 1h))) / on(a) '
        "group_left(b) vector(2) > bool 0"
    )
    parse(whole)
    rand = random.Random(7)
    broken = [whole[:index] for index in range(len(whole))]
    broken += [whole[:i] + whole[i + 1 :] for i in range(len(whole))]
    broken += ["".join(rand.sample(whole, 40)) for _ in range(200)]
    for text in broken:
        with contextlib.suppress(QueryError):
            parse(text)
