"""Printing: a tree as text, and the same tree from that text."""

import pytest
from hypothesis import given, settings

from collector.query.logql import parse, show
from tests.logql import QUERIES


@settings(max_examples=400)
@given(QUERIES)
def test_printing_and_parsing_again_gives_the_same_tree(query):
    """Any tree: parse(show(tree)) == tree."""
    assert parse(show(query)) == query


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{a='b'}".replace("'", '"'), '{a="b"}'),
        ('{a = "b"  ,c=~`d"`}|="x"', '{a="b", c=~"d\\""} |= "x"'),
        ('rate({a="b"}|="x"[90s])', 'rate({a="b"} |= "x" [1m30s])'),
        ("(1+2)*3-(4-5)", "(1 + 2) * 3 - (4 - 5)"),
        ("2^(3^4)", "2 ^ 3 ^ 4"),
        ("(2^3)^4", "(2 ^ 3) ^ 4"),
        ('{a="b"}|x>5,y="z"or w=1KB', '{a="b"} | x > 5 and y="z" or w == 1000B'),
        ('sum(rate({a="b"}[1m]))by(c)', 'sum by (c) (rate({a="b"} [1m]))'),
    ],
)
def test_a_query_is_printed_in_one_form(text, expected):
    """Spaces, quotes, units and groupings have one spelling; parentheses only where needed."""
    assert show(parse(text)) == expected
