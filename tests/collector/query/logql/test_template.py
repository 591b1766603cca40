"""Templates of line_format and label_format: values, blocks, functions and what is refused."""

import pytest

from collector.query.logql.template import Scope, compiled
from collector.query.logql.template_functions import FUNCTIONS, TemplateError

SCOPE = Scope(
    {"a": "Foo bar", "n": "7", "j": '{"k": [1, "x"]}'}, "the line", 1_500_000_000_000_000_001
)


def made(template):
    """What a template makes of the one line."""
    return compiled(template)(SCOPE)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", ""),
        ("x {{.a}} y", "x Foo bar y"),
        ("{{ .none }}", ""),
        ("a {{- .n -}} b", "a {{- .n -}} b".replace(" {{- .n -}} ", "7")),
        ("{{/* comment */}}x", "x"),
        ("{{ if .a }}yes{{ else }}no{{ end }}", "yes"),
        ('{{ if .none }}1{{ else if eq .n "7" }}2{{ else }}3{{ end }}', "2"),
        ("{{ with .a }}{{ . }}!{{ end }}", "Foo bar!"),
        ("{{ .a | lower | trunc 3 }}", "foo"),
        ('{{ printf "%s-%05d-%.2f" .a (int .n) (float64 .n) }}', "Foo bar-00007-7.00"),
        ('{{ if and (gt (int .n) 5) (contains "bar" .a) }}x{{ end }}', "x"),
        ('{{ default "d" .none }}{{ .none | default "e" }}', "de"),
        ('{{ regexReplaceAll "(o+)" .a "<$1>" }}', "F<oo> bar"),
        ('{{ replace "o" "0" .a }}', "F00 bar"),
        ('{{ trimPrefix "Foo " .a | upper }}', "BAR"),
        ('{{ substr 0 3 .a }}{{ title "ab cd" }}', "FooAb Cd"),
        ("{{ add 1 2 (int .n) }} {{ sub 5 2 }} {{ mul 2 3 }} {{ div 7 2 }} {{ mod 7 4 }}", "10 3 6 3 3"),
        ("{{ divf 7 2 }} {{ round 3.14159 2 }} {{ floor 2.7 }} {{ ceil 2.1 }}", "3.5 3.14 2 3"),
        ('{{ index (fromJson .j) "k" }}', '[1, "x"]'),
        ("{{ __line__ | len }} {{ unixEpoch __timestamp__ }}", "8 1500000000"),
        ("{{ unixEpochNanos __timestamp__ }}", "1500000000000000001"),
        ('{{ .a | b64enc | b64dec }} {{ urlencode "a b&c" }}', "Foo bar a+b%26c"),
        ('{{ count "o" .a }} {{ repeat 3 "ab" }}|{{ alignLeft 5 "ab" }}|{{ alignRight 5 "ab" }}|',
         "2 ababab|ab   |   ab|"),
        ('{{ duration "1500ms" }} {{ bytes "2KB" }}', "1.5 2000"),
        ("{{ not true }} {{ nil }}", "false <no value>"),
    ],
)  # fmt: skip
def test_a_template_makes_this_text(template, expected):
    """Fields, blocks, pipes, arithmetic and text functions (D5)."""
    assert made(template) == expected


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{", "{{ without }}"),
        ("{{ if .a }}", "without {{end}}"),
        ("{{ end }}", "without an opening"),
        ("{{ range .a }}{{ end }}", "do not support `range`"),
        ("{{ $x := 1 }}", "variables are not supported"),
        ("{{ nope .a }}", "no function `nope`"),
        ("{{ upper }}", "takes 1 arguments"),
        ("{{ .a | .b }}", "pipes into something"),
        ("{{ .a .b }}", "an argument behind something"),
        ("{{ (fromJson .j).k }}", "an argument behind something"),
        ("{{ (.a }}", r"a ( without )"),
        ("{{ .a ) }}", r"a ) without ("),
        ("{{ }}", "without a value"),
        ("{{ " + "(" * 100 + ".a" + ")" * 100 + " }}", "nests deeper"),
        ("{{ if .a }}" * 100 + "{{ end }}" * 100, "nests deeper"),
    ],
)
def test_what_is_no_template_is_refused_when_the_query_is_parsed(template, error):
    """Each fault is a sentence, and nothing runs."""
    with pytest.raises(ValueError) as caught:
        compiled(template)
    assert error in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "{{ div 1 0 }}",
        "{{ divf 1 0 }}",
        '{{ float64 "x" }}',
        '{{ fromJson "{" }}',
        '{{ duration "x" }}',
        '{{ unixEpoch "x" }}',
        '{{ index (fromJson .j) "z" }}',
        "{{ lt .a 5 }}",
        '{{ regexReplaceAll "(" .a "" }}',
        '{{ repeat 1000000 "ab" }}',
        '{{ repeat 200000 "a" }}' * 3,
        '{{ b64dec "*" }}',
        '{{ alignLeft 99999999 "a" }}',
        '{{ replace "" (repeat 100000 "a") (repeat 100 "b") }}',
    ],
)  # fmt: skip
def test_a_function_that_fails_is_an_error_of_the_line(template):
    """Zero, text that is no number, results that are too long: TemplateError and nothing else."""
    with pytest.raises(TemplateError):
        made(template)


def test_no_function_raises_anything_else():
    """Any function with any odd arguments returns or raises TemplateError."""
    odd = ["", '"x"', "0", "-1", "nil", "true", ".a", "__timestamp__", "(fromJson .j)", "1.5"]
    for name, (least, most, _) in FUNCTIONS.items():
        for value in odd[1:]:
            for count in {least, min(most, 3)}:
                try:
                    made("{{ " + " ".join([name, *[value] * count]) + " }}")
                except TemplateError:
                    continue
