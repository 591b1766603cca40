"""What null, {} and enabled mean, and which value fits which field."""

import pytest

from collector.model import Duration, Secret

FIRST = "'exporters' error reading configuration for \"debug\": "


def describe(section):
    return None if section is None else section.cert_file


@pytest.mark.parametrize(
    ("key", "yaml", "on"),
    [
        ("on_request", "flag: true", False),
        ("on_request", "on_request:", True),
        ("on_request", "on_request: {}", True),
        ("on_request", "on_request: {enabled: false}", False),
        ("on_request", "on_request: {enabled: true}", True),
        ("on_request", "on_request: {enabled: false, cert_file: x}", False),
        ("optional", "flag: true", False),
        ("optional", "optional:", False),
        ("optional", "optional: {}", True),
        ("optional", "optional: {enabled: false}", False),
        ("optional", "optional: {enabled: true}", True),
        ("sending_queue", "flag: true", True),
        ("sending_queue", "sending_queue:", True),
        ("sending_queue", "sending_queue: {}", True),
        ("sending_queue", "sending_queue: {enabled: false}", False),
        ("retry", "flag: true", True),
        ("retry", "retry:", True),
        ("retry", "retry: {}", True),
        ("retry", "retry: {enabled: false}", False),
    ],
)
def test_empty_null_and_enabled(loader, key, yaml, on):
    """A section is on or off as the table of absent, null, empty and enabled says."""
    assert (getattr(loader.debug(yaml), key) is not None) is on


def test_disabled_sections_are_decoded_too(loader):
    """A switched-off section still refuses keys that do not exist."""
    assert loader.debug_errors("optional: {enabled: false, cart_file: x}") == [
        FIRST + "'optional' has invalid keys: cart_file\n"
        '  c1.yaml:3, exporters.debug.optional.cart_file; did you mean "cert_file"?'
    ]


@pytest.mark.parametrize("body", ["optional: {enabled: 'x'}", "sending_queue: {enabled: x}"])
def test_enabled_must_be_a_bool(loader, body):
    """`enabled` with a text gives the Collector's own message."""
    text = "unexpected type string for 'enabled': got 'x' value expected 'true' or 'false'"
    assert text in loader.debug_errors(body)[0]


@pytest.mark.parametrize(
    ("body", "key", "expected"),
    [
        ("flag: false", "flag", False),
        ("flag:", "flag", True),
        ("count: 0123", "count", 83),
        ("count: 0o17", "count", 15),
        ("count: 0x1F", "count", 31),
        ("count: 1_000", "count", 1000),
        ("count: -5", "count", -5),
        ("count:", "count", 7),
        ("ratio: 3", "ratio", 3.0),
        ("ratio: 1e3", "ratio", 1000.0),
        ("ratio: .5", "ratio", 0.5),
        ("text: no", "text", "no"),
        ("text: yes", "text", "yes"),
        ("text: on", "text", "on"),
        ("text: 12:30:45", "text", "12:30:45"),
        ("text: 2024-01-01", "text", "2024-01-01"),
        ("text: '1'", "text", "1"),
        ("text: !!str 1", "text", "1"),
        ("text: ''", "text", ""),
        ("text:", "text", "default"),
        ("secret: abc", "secret", Secret("abc")),
        ("timeout: 1m30s", "timeout", Duration(90)),
        ("timeout: 1.5h", "timeout", Duration(5400)),
        ("timeout: -5s", "timeout", Duration(-5)),
        ("timeout: '0'", "timeout", Duration(0)),
        ("timeout: 0", "timeout", Duration(0)),
        ("timeout: 2000000", "timeout", Duration(0.002)),
        ("timeout: 5\u00b5s", "timeout", Duration(0.000005)),
        ("timeout: 5\u03bcs", "timeout", Duration(0.000005)),
        ("names:", "names", ["a", "b"]),
        ("names: []", "names", []),
        ("names: [x]", "names", ["x"]),
        ("names: x,y", "names", ["x", "y"]),
        ("frozen: [1, 2]", "frozen", (1, 2)),
        ("labels:", "labels", {"x": "y"}),
        ("labels: {}", "labels", {}),
        ("labels: {a: b}", "labels", {"a": "b"}),
        ("headers: {a: b}", "headers", {"a": "b"}),
        ("headers: [{name: a, value: b}]", "headers", {"a": "b"}),
        ("anything: {a: [1, no]}", "anything", {"a": [1, "no"]}),
        ("mode: normal", "mode", "normal"),
        ("any_case: NORMAL", "any_case", "normal"),
        ("level: high", "level", "high"),
        ("either: 3", "either", 3),
        ("either: x", "either", "x"),
        ("maybe: x", "maybe", "x"),
        ("plain:\n  cert_file: x", "plain", None),
    ],
)
def test_values_that_fit(loader, body, key, expected):
    """Each YAML value becomes the value that go-yaml and the Collector make of it."""
    value = getattr(loader.debug(body), key)
    assert (value.cert_file if key == "plain" else value) == ("x" if key == "plain" else expected)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("flag: 'true'", "'flag' expected type 'bool', got unconvertible type 'string'"),
        ("flag: yes", "'flag' expected type 'bool', got unconvertible type 'string'"),
        ("flag: 1", "'flag' expected type 'bool', got unconvertible type 'int'"),
        ("count: '1'", "'count' expected type 'int', got unconvertible type 'string'"),
        ("count: true", "'count' expected type 'int', got unconvertible type 'bool'"),
        ("count: .nan", "'count' expected type 'int', got unconvertible type 'float64'"),
        ("ratio: true", "'ratio' expected type 'float64', got unconvertible type 'bool'"),
        ("text: 1234", "'text' expected type 'string', got unconvertible type 'int'"),
        ("text: 1.5", "'text' expected type 'string', got unconvertible type 'float64'"),
        ("text: [a]", "'text' expected type 'string', got unconvertible type '[]interface {}'"),
        (
            "text: {a: b}",
            "'text' expected type 'string', got unconvertible type 'map[string]interface {}'",
        ),
        ("timeout: '5'", "'timeout' time: missing unit in duration \"5\""),
        ("timeout: 1d", '\'timeout\' time: unknown unit "d" in duration "1d"'),
        ("timeout: ''", "'timeout' time: invalid duration \"\""),
        ("timeout: 1m 30s", '\'timeout\' time: unknown unit "m " in duration "1m 30s"'),
        ("timeout: true", "'timeout' expected type 'time.Duration'"),
        ("names: {a: b}", "'names' source data must be an array or slice, got map"),
        ("names: 5", "'names' source data must be an array or slice, got int"),
        ("names: [1]", "'names[0]' expected type 'string', got unconvertible type 'int'"),
        ("labels: x", "'labels' expected type 'map[string]string'"),
        ("plain: x", "'plain' expected a map or struct, got \"string\""),
        ("plain: [x]", "'plain' expected a map or struct, got \"slice\""),
        ("items: [{size: 3}]", "'items[0].name' must be specified"),
        ("items: [{nam: x}]", "'items[0]' has invalid keys: nam"),
        ("mode: loud", "'mode' unknown value \"loud\" (valid values: [basic normal])"),
        ("mode: NORMAL", "'mode' unknown value \"NORMAL\" (valid values: [basic normal])"),
        ("level: loud", "'level' unknown value \"loud\" (valid values: [low high])"),
        ("small: 0", "'small' must be greater than 0, got 0"),
        ("small: 11", "'small' must be less than or equal to 10, got 11"),
        (
            "headers: [{name: x, value: a}, {name: x, value: b}]",
            "'headers' duplicate keys in map-style list: [x]",
        ),
        ("headers: [x]", "'headers[0]' expected a map with the keys name and value"),
        ("Flag: true", "'' has invalid keys: Flag"),
        ("plain: {cert_fle: x}", "'plain' has invalid keys: cert_fle"),
    ],
)
def test_values_that_do_not_fit(loader, body, text):
    """There is no coercion: each misfit is refused with the Collector's text."""
    problems = loader.debug_errors(body)
    assert [problem.startswith(FIRST + text) for problem in problems] == [True]


def test_every_problem_of_a_component_is_reported_with_its_line(loader):
    """Several mistakes are several messages, each with file, line, path and fix."""
    assert loader.debug_errors("flg: true\ncount: x\nplain:\n  cert_fle: y") == [
        FIRST + "'' has invalid keys: flg\n"
        '  c1.yaml:3, exporters.debug.flg; did you mean "flag"?',
        FIRST + "'count' expected type 'int', got unconvertible type 'string'\n"
        "  c1.yaml:4, exporters.debug.count",
        FIRST + "'plain' has invalid keys: cert_fle\n"
        '  c1.yaml:6, exporters.debug.plain.cert_fle; did you mean "cert_file"?',
    ]


def test_numbers_are_cut_with_a_warning(loader):
    """A fraction in a whole-number field is cut, and the cut is told."""
    config = loader(*loader.with_debug("count: 3.9\ntimeout: 5"))
    assert config.exporters["debug"].config.count == 3
    assert [warning.replace(f"{loader.folder}/", "") for warning in config.warnings] == [
        "exporters.debug.count: 3.9 is cut to 3\n  c1.yaml:3",
        'exporters.debug.timeout: 5 means 5 nanoseconds; for seconds write "5s"\n  c1.yaml:4',
    ]


def test_double_colons_in_keys_are_paths(loader):
    """`a::b: x` equals the nested form, at any level, and joins with it."""
    config = loader(
        "receivers::otlp::protocols::grpc:\nexporters:\n  debug::plain::cert_file: x\n"
        "  debug: {text: y}\n"
        "service::pipelines: {traces: {receivers: [otlp], exporters: [debug]}}\n"
    )
    body = config.exporters["debug"].config
    assert (body.plain.cert_file, body.text) == ("x", "y")
    assert config.receivers["otlp"].config.protocols.grpc.endpoint == "localhost:4317"


def test_import_string_types_need_no_registration(loader):
    """A type with a colon is an import string, with or without a name behind the slash."""
    config = loader(loader.good, f'exporters:\n  "{loader.outlet}/two": {{count: 2}}\n')
    found = config.exporters[f"{loader.outlet}/two"]
    assert (found.type, found.cls.__name__, found.config.count) == (loader.outlet, "Outlet", 2)
