"""Expansion of ${...}: which text reaches which field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.config import InvalidConfig, read_source

FIRST = "'exporters' error reading configuration for \"debug\": "


def one(value, environ=None):
    """What the value of one key becomes, untyped."""
    quoted = "'" + value.replace("'", "''") + "'"
    return read_source([f"yaml:a: {quoted}"], environ=environ or {})["a"]


@pytest.mark.parametrize(
    ("variable", "body", "key", "expected"),
    [
        ("0123", "count: ${V}", "count", 83),
        ("0123", "text: ${V}", "text", "0123"),
        ("0123", "text: x ${V} y", "text", "x 0123 y"),
        ('"0123"', "text: ${V}", "text", '"0123"'),
        ('"0123"', "text: x ${V} y", "text", 'x "0123" y'),
        ("true # note", "flag: ${V}", "flag", True),
        ("true # note", "text: ${V}", "text", "true # note"),
        ("true # note", "text: x ${V} y", "text", "x true # note y"),
        ("[a,b]", "names: ${V}", "names", ["a", "b"]),
        ("[a,b]", "text: ${V}", "text", "[a,b]"),
        ("[a,b]", "text: x ${V} y", "text", "x [a,b] y"),
        ('["a",', "text: ${V}", "text", '["a",'),
        ('["a",', "text: x ${V} y", "text", 'x ["a", y'),
        ("$${ENV}", "text: ${V}", "text", "${ENV}"),
        ("$${ENV}", "text: x ${V} y", "text", "x ${ENV} y"),
        ("a,b", "names: ${V}", "names", ["a", "b"]),
        ("0123", "names: ['${V}']", "names", ["0123"]),
        ("0123", "labels: {a: '${V}'}", "labels", {"a": "0123"}),
        ("{a: b}", "labels: ${V}", "labels", {"a": "b"}),
        ("5s", "timeout: ${V}", "timeout", 5.0),
        ("1234", "secret: ${V}", "secret", "1234"),
        ("NORMAL", "any_case: ${V}", "any_case", "normal"),
        ("3", "ratio: ${V}", "ratio", 3.0),
        ("", "text: ${V}", "text", ""),
        ("", "text: ${W}", "text", ""),
        ("", "maybe: ${W}", "maybe", None),
        ("", "count: ${V}", "count", 0),
        ("", "flag: ${W}", "flag", False),
        ("", "timeout: ${W}", "timeout", 0.0),
        ("", "text: ${env:W:-}", "text", ""),
        ("", "text: ${env:W:-d}", "text", "d"),
        ("", "count: ${env:W:-83}", "count", 83),
        ("", "text: ${env:V:-d}", "text", ""),
        ("", "on_request: ${W}", "on_request", None),
        ("", "text: ${yaml:a}", "text", "a"),
        ("", "names: '${yaml:[a, b]}'", "names", ["a", "b"]),
    ],
)
def test_the_type_of_the_field_decides(loader, variable, body, key, expected):
    """A whole ${...} is its text for a text field and its YAML value for any other."""
    assert getattr(loader.debug(body, {"V": variable}), key) == expected


@pytest.mark.parametrize(
    ("variable", "body", "text"),
    [
        ('"0123"', "count: ${V}", "'count' expected type 'int', got unconvertible type 'string'"),
        ('["a",', "names: ${V}", None),
        ('["a",', "frozen: ${V}", "'frozen' source data must be an array or slice, got string"),
        ("5", "count: 1${V}", "'count' expected type 'int', got unconvertible type 'string'"),
        ("yes", "flag: ${V}", "'flag' expected type 'bool', got unconvertible type 'string'"),
    ],
)
def test_quoted_and_broken_text_is_text(loader, variable, body, text):
    """Quotes stay part of the text, and text that is not YAML stays text."""
    if text is None:
        assert loader.debug(body, {"V": variable}).names == ['["a"', ""]
    else:
        assert loader.debug_errors(body, {"V": variable})[0].startswith(FIRST + text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$${A} ${B}", "${A} b"),
        ("$${B}${B}$${B}$$${B}", "${B}b${B}$b"),
        ("$${A${B}}", "${Ab}"),
        ("$${A}} ${B}", "${A}} b"),
        ("${B} $${A}", "b ${A}"),
        ("$$${B}", "$b"),
        ("$$$${B}", "$${B}"),
        ("$B $ $$", "$B $ $"),
        ("${env:${NAME}}", "b"),
        ("${B}${B}", "bb"),
        ("} ${B} {", "} b {"),
        ("${B", "${B"),
        ("${OUTER}", "inside b"),
        ("x ${OUTER}", "x inside b"),
        ("a${env:NO:-x}c", "axc"),
        ("a${env:NO:-${B}}c", "abc"),
        ("a${env:NO:-}c", "ac"),
    ],
)
def test_escapes_and_nesting(text, expected):
    """The innermost reference goes first; an odd number of $ before one escapes that one alone."""
    environ = {"A": "a", "B": "b", "NAME": "B", "OUTER": "inside ${B}"}
    assert one(text, environ) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "${env:x.y}",
            (
                'environment variable "x.y" has invalid name: must match regex '
                "^[a-zA-Z_][a-zA-Z0-9_]*$"
            ),
        ),
        ("${}", 'environment variable "" has invalid name'),
        ("${1A}", 'environment variable "1A" has invalid name'),
        ("${NAME:-d}", 'scheme "NAME" is not supported for uri "NAME:-d"'),
        ("${http://h/x}", 'scheme "http" is not supported for uri "http://h/x"'),
        ("${a:b}", 'invalid uri: "a:b"'),
        ("${env:A$B}", "the uri \"env:A$B\" contains unsupported characters ('$')"),
        ("${file:nowhere.txt}", "unable to read the file file:nowhere.txt: open nowhere.txt: "),
        ("${SELF}", "too many recursive expansions"),
        ("${PING}", "too many recursive expansions"),
        ("x${TWICE}", "too many recursive expansions"),
        ("${LIST}", "too many recursive expansions"),
    ],
)
def test_references_that_cannot_be_expanded(text, problem):
    """A bad name, an unknown scheme, a missing file and a circle are errors that name the cause."""
    environ = {
        "SELF": "${SELF}",
        "PING": "${PONG}",
        "PONG": "${PING}",
        "TWICE": "${TWICE}${env:TWICE}",
        "LIST": "[${LIST}, ${LIST}]",
    }
    with pytest.raises(InvalidConfig) as caught:
        one(text, environ)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(problem)
    prefix = "failed to get config: cannot resolve the configuration: "
    assert str(caught.value).startswith(prefix + problem)


def test_every_reference_that_fails_is_reported(loader):
    """Two bad references are two messages, each with its line."""
    assert loader.debug_errors("text: ${env:a.b}\ncount: ${env:c.d}") == [
        f'environment variable "{name}" has invalid name: must match regex '
        f"^[a-zA-Z_][a-zA-Z0-9_]*$\n  c1.yaml:{line}, exporters.debug.{key}; "
        "write $$ for a dollar sign that is not the start of a variable"
        for name, line, key in (("a.b", 3, "text"), ("c.d", 4, "count"))
    ]


def test_unset_and_empty_variables_are_warned_about(loader):
    """The warning names the variable, the line and the field that gets the zero value."""
    config = loader(
        *loader.with_debug("timeout: ${env:T}\ntext: ${E}\ncount: ${env:U:-3}"), environ={"E": ""}
    )
    assert [warning.replace(f"{loader.folder}/", "") for warning in config.warnings] == [
        (
            'Configuration references unset environment variable "T"\n'
            "  c1.yaml:3, exporters.debug.timeout; set it, or give a default: ${env:T:-default}"
        ),
        (
            'Configuration references empty environment variable "E"\n'
            "  c1.yaml:4, exporters.debug.text; set it, or give a default: ${env:E:-default}"
        ),
        (
            "exporters.debug.timeout: is '0s', the zero value, because its variable is empty\n"
            "  c1.yaml:3"
        ),
    ]


def test_keys_are_never_expanded(loader):
    """A reference in a key is text."""
    labels = loader.debug('labels: {"${V}": x}', {"V": "v"}).labels
    assert labels == {"${V}": "x"}


def test_files_in_values(loader):
    """${file:} gives a list, a map or text; a secret loses the line break at its end."""
    names = loader.file("[a, b]\n", "names.yaml")
    token = loader.file("s3cret\n", "token")
    found = loader(
        *loader.with_debug(
            f"names: ${{file:{names}}}\nsecret: ${{file:{token}}}\ntext: ${{file:{token}}}"
        )
    )
    config = found.exporters["debug"].config
    assert (config.names, str(config.secret), config.text) == (["a", "b"], "s3cret", "s3cret\n")
    assert [warning.replace(f"{loader.folder}/", "") for warning in found.warnings] == [
        (
            "exporters.debug.secret: the line break at the end of the file is no part of the secret\n"
            "  c1.yaml:4"
        )
    ]


def test_problems_inside_an_included_file_name_its_line(loader):
    """A mistake in an included file is reported at the file's own line."""
    part = loader.file("text: x\ncount: y\n", "part.yaml")
    assert loader.errors(loader.good, f"exporters:\n  debug: ${{file:{part}}}\n") == [
        FIRST + "'count' expected type 'int', got unconvertible type 'string'\n"
        "  part.yaml:2, exporters.debug.count"
    ]


@given(st.text(st.characters(codec="utf-8", exclude_characters="$", exclude_categories=["Cc"])))
def test_text_without_a_dollar_is_unchanged(text):
    """Text that holds no dollar sign is not touched."""
    assert one(text) == text


@given(st.text(st.sampled_from("${}:-aB ")))
def test_doubled_dollars_come_back(text):
    """Any text survives when each of its dollar signs is doubled."""
    assert one(text.replace("$", "$$")) == text


@given(st.lists(st.sampled_from(["$", "${", "}", "${A}", "${env:B:-", ":", "x", "{", "${C}"])))
def test_any_reference_ends_in_text_or_a_problem(parts):
    """However references are nested or broken, expansion ends with a value or a ConfigError."""
    try:
        ended = isinstance(one("".join(parts), {"A": "${C}", "B": "$${A}", "C": "$"}), str)
    except InvalidConfig as error:
        ended = error.problems == error.resolving
    assert ended
