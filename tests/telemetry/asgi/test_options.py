"""Options: arguments, variables, defaults, and what is said about bad ones."""

import re
from pathlib import Path

import pytest

from telemetry.instrumentation._asgi import options as asgi_options
from telemetry.instrumentation.asgi import CorrelationIdMiddleware

DOCS = Path(__file__).parents[3] / "docs" / "tutorial" / "fastapi.md"


def matches(rules, method, path):
    return asgi_options.rule_for(rules, method, (path,)) is not None


def test_argument_wins_over_variable_wins_over_default():
    """A8: each option has a variable, and code wins."""
    environ = {
        "TELEMETRY_HTTP_SLOW": "2.5",
        "TELEMETRY_HTTP_ACCESS_LOG": "off",
        "TELEMETRY_HTTP_EXCLUDE": "/up,GET /static/*",
        "TELEMETRY_HTTP_SAMPLE": "GET /poll=0.01, /feed/{id}=0",
        "TELEMETRY_HTTP_TRACE_HEADER": " Both ",
        "TELEMETRY_HTTP_TRUST_BAGGAGE": "",
    }
    options, problems = asgi_options.read({"slow": 4, "sample": None}, environ)
    assert problems == []
    assert (options.slow, options.access_log, options.trace_header) == (4, False, "both")
    assert (options.trust_baggage, options.operation_spans) == (False, False)
    assert [rule[2] for rule in options.sample] == [0.01, 0]
    assert matches(options.exclude, "POST", "/up/")
    assert not matches(options.exclude, "POST", "/static/a")


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("/a", ["/a", "/a/"], ["/a/b", "/ab", "/"]),
        ("/a/*", ["/a/", "/a/b/c"], ["/a", "/ab"]),
        ("/a*", ["/a", "/ab", "/a/b"], ["/b"]),
        ("/u/{id}/x", ["/u/1/x"], ["/u//x", "/u/1/2/x"]),
        ("/", ["/"], ["/a"]),
        ("/a.b", ["/a.b"], ["/axb"]),
    ],
)
def test_patterns_are_those_of_routing_tables(pattern, yes, no):
    """A placeholder is one segment; a star is the rest."""
    options, problems = asgi_options.read({"exclude": [pattern]}, {})
    assert problems == []
    assert [path for path in yes if not matches(options.exclude, "GET", path)] == []
    assert [path for path in no if matches(options.exclude, "GET", path)] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exclude", "health"),
        ("exclude", 7),
        ("sample", {"/poll": 2}),
        ("sample", "/poll"),
        ("sample", {"poll": 0.1}),
        ("slow", "fast"),
        ("slow", -1),
        ("access_log", "maybe"),
        ("trace_header", "x-trace"),
    ],
)
def test_a_bad_value_is_said_and_its_default_used(capsys, name, value):
    """G01: the application still starts; stderr names option, value and fix."""
    default = getattr(asgi_options.Options(), name)
    options = asgi_options.take({name: value})
    assert getattr(options, name) == default
    error = capsys.readouterr().err
    assert error.startswith(f"otelier: {name}={value!r} cannot be used; give ")
    assert error.count("\n") == 1


def test_an_unknown_option_is_said(capsys):
    """A typing mistake is no TypeError in the first request."""
    CorrelationIdMiddleware(print, exlude=["/a"])
    assert capsys.readouterr().err.startswith("otelier: there is no option 'exlude'; there are: ")


def test_each_option_is_documented():
    """docs/tutorial/fastapi.md has a row with name, variable and default for each option."""
    text = DOCS.read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| `(TELEMETRY_\w+)` \|", text, re.MULTILINE))
    assert rows == {name: table["env"] for name, table in asgi_options.TABLE.items()}
    assert [name for name, table in asgi_options.TABLE.items() if table["doc"] not in text] == []
