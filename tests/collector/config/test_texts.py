"""The texts that people search for: ids, types, references, pipelines, the order of the report."""

import pytest

from collector.config import ComponentConfig, PipelineConfig
from collector.model import Signal

READING = "error reading configuration for"


def pipelines(text, more=""):
    """The good configuration with other pipelines."""
    return (
        "receivers: {otlp: {protocols: {grpc: }}}\n"
        "processors: {step: , step/2: }\n"
        "exporters: {debug: }\n"
        f"{more}"
        f"service: {text}\n"
    )


def test_a_valid_configuration(loader):
    """A valid configuration becomes components and pipelines, and warns about nothing."""
    config = loader(
        "receivers: {' otlp / x ': {protocols: {grpc: }}}\n"
        "processors: {step: }\n"
        "exporters: {debug: , mongodb/unused: }\n"
        "extensions: {watch: {store: debug}}\n"
        "service:\n"
        "  extensions: [watch]\n"
        "  telemetry: {logs: {level: DEBUG}}\n"
        "  pipelines:\n"
        "    traces: {receivers: [otlp/x], processors: [step], exporters: [debug, debug]}\n"
        "    logs / b: {receivers: otlp/x, exporters: [debug]}\n"
    )
    assert config.pipelines == {
        "traces": PipelineConfig("traces", Signal.TRACES, ("otlp/x",), ("step",), ("debug",)),
        "logs/b": PipelineConfig("logs/b", Signal.LOGS, ("otlp/x",), (), ("debug",)),
    }
    receiver = config.receivers["otlp/x"]
    assert receiver == ComponentConfig("otlp/x", "otlp", receiver.cls, receiver.config)
    assert list(config.exporters) == ["debug", "mongodb/unused"]
    assert (config.service_extensions, config.telemetry.logs.level) == (("watch",), "debug")
    assert config.source["service"]["telemetry"] == {"logs": {"level": "DEBUG"}}
    assert config.warnings == []


IDS = [
    ("''", "id must not be empty"),
    ("x/", 'in "x/" id: the part after / should not be empty'),
    ("/x", 'in "/x" id: the part before / should not be empty'),
    ("a b", 'in "a b" id: invalid character(s) in type "a b"'),
    ("1a", 'in "1a" id: invalid character(s) in type "1a"'),
    ("debug/a b", 'in "debug/a b" id: invalid character(s) in name "a b"'),
    ("debug/a+b", 'in "debug/a+b" id: invalid character(s) in name "a+b"'),
    ("a" * 64, "invalid character(s) in type"),
    ("debug/" + "n" * 1025, "invalid character(s) in name"),
    ("'mod:'", 'in "mod:" id: invalid character(s) in type "mod:"'),
    ("os.path:join", 'unknown type: "os.path:join" for id: "os.path:join" (valid values:'),
]


@pytest.mark.parametrize(("key", "text"), IDS)
def test_ids_that_cannot_be(loader, key, text):
    """A bad id is refused with the Collector's text."""
    problems = loader.errors(loader.good, f"exporters: {{? {key} : }}\n")
    assert [text in problem for problem in problems] == [True]


@pytest.mark.parametrize("name", ["a-b", "a.b", "a:b", "a#b", "a/b", "n" * 1024, "\u00e4"])
def test_names_that_can_be(loader, name):
    """Names may hold - . : # and further slashes."""
    config = loader(loader.good, f"exporters: {{? 'debug/{name}' : }}\n")
    assert f"debug/{name}" in config.exporters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "bar: 1",
            [
                (
                    "'' has invalid keys: bar\n  c1.yaml:1, bar; valid keys: connectors, exporters, "
                    "extensions, processors, receivers, service"
                )
            ],
        ),
        (
            "service: {pipeline: }",
            [
                (
                    "'service' has invalid keys: pipeline\n"
                    '  c1.yaml:1, service.pipeline; did you mean "pipelines"?'
                )
            ],
        ),
        (
            "receivers: 5",
            ["'receivers' expected a map or struct, got \"int\"\n  c1.yaml:1, receivers"],
        ),
        (
            "receivers: {otlp: {protocols: {grcp: }}}",
            [
                (
                    f"'receivers' {READING} \"otlp\": 'protocols' has invalid keys: grcp\n"
                    '  c1.yaml:1, receivers.otlp.protocols.grcp; did you mean "grpc"?'
                )
            ],
        ),
        (
            "exporters: {debgu/1: }",
            [
                (
                    '\'exporters\' unknown type: "debgu" for id: "debgu/1" '
                    "(valid values: [debug mongodb])\n"
                    '  c1.yaml:1, exporters.debgu/1; did you mean "debug"?'
                )
            ],
        ),
        (
            "processors: {tail_sampling: }",
            [
                (
                    '\'processors\' unknown type: "tail_sampling" for id: "tail_sampling" '
                    "(valid values: [step])\n"
                    "  c1.yaml:1, processors.tail_sampling; valid types: step"
                )
            ],
        ),
        (
            "exporters: {logging: }",
            [
                (
                    "'exporters' the logging exporter has been deprecated, use the debug exporter "
                    "instead\n  c1.yaml:1, exporters.logging; rename it to debug"
                )
            ],
        ),
        (
            "exporters: {debug: 5}",
            [
                (
                    "'exporters[debug]' expected type 'map[string]interface {}', got unconvertible type "
                    "'int'\n  c1.yaml:1, exporters.debug; write \"debug\": with its keys below it, or "
                    "nothing for all defaults"
                )
            ],
        ),
        (
            "exporters: {'debug ': }",
            [
                (
                    "'exporters' duplicate name \"debug \" after unmarshaling debug\n"
                    '  c1.yaml:1, exporters.debug ; the other is "debug", c.yaml:4'
                )
            ],
        ),
        (
            "service: {pipelines: {spans: }}",
            [
                (
                    "'service.pipelines' unknown pipeline signal: \"spans\"\n"
                    "  c1.yaml:1, service.pipelines.spans; valid signals: traces, metrics, logs"
                )
            ],
        ),
        (
            "service: {pipelines: {traces: {recievers: [otlp]}}}",
            [
                (
                    "'service.pipelines[traces]' has invalid keys: recievers\n"
                    '  c1.yaml:1, service.pipelines.traces.recievers; did you mean "receivers"?'
                )
            ],
        ),
        (
            "service: {pipelines: {traces: {receivers: {otlp: }}}}",
            [
                (
                    "'service.pipelines[traces].receivers' source data must be an array or slice, got map"
                    "\n  c1.yaml:1, service.pipelines.traces.receivers; write a list: [a, b]"
                )
            ],
        ),
        (
            "service: {pipelines: {traces: {exporters: [debug, '']}}}",
            [
                (
                    "'service.pipelines[traces].exporters[1]' id must not be empty\n"
                    "  c1.yaml:1, service.pipelines.traces.exporters[1]"
                )
            ],
        ),
        (
            "service: {telemetry: {logs: {levle: debug}}}",
            [
                (
                    "'service.telemetry.logs' has invalid keys: levle\n"
                    '  c1.yaml:1, service.telemetry.logs.levle; did you mean "level"?'
                )
            ],
        ),
    ],
)
def test_decoding_texts(loader, text, expected):
    """Keys, types and ids that do not fit give the Collector's text, place and fix."""
    assert loader.errors(loader.good, text + "\n") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["empty configuration file"]),
        ("receivers:\nservice:\n", ["empty configuration file"]),
        (
            "exporters: {debug: }\nservice: {pipelines: {traces: {exporters: [debug]}}}",
            [
                "no receiver configuration specified in config",
                "service::pipelines::traces: must have at least one receiver",
            ],
        ),
        (
            "receivers: {otlp: {protocols: {http: }}}",
            [
                "no exporter configuration specified in config",
                "service::pipelines: service must have at least one pipeline",
            ],
        ),
        (
            pipelines("{pipelines: {}}"),
            ["service::pipelines: service must have at least one pipeline"],
        ),
        (
            pipelines("{pipelines: {traces: }}"),
            [
                "service::pipelines::traces: must have at least one receiver",
                "service::pipelines::traces: must have at least one exporter",
            ],
        ),
        (
            pipelines(
                "{pipelines: {logs/a: {receivers: [otlp], processors: [step, step/2, step], exporters: [debug]}}}"
            ),
            ['service::pipelines::logs/a: references processor "step" multiple times'],
        ),
        (
            pipelines("{pipelines: {traces: {receivers: [x], processors: [y], exporters: [z]}}}"),
            [
                'service::pipelines::traces: references receiver "x" which is not configured',
                'service::pipelines::traces: references processor "y" which is not configured',
                'service::pipelines::traces: references exporter "z" which is not configured',
            ],
        ),
        (
            pipelines(
                "{extensions: [x], pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}"
            ),
            ['service::extensions: references extension "x" which is not configured'],
        ),
        (
            pipelines("{pipelines: {profiles: {receivers: [otlp], exporters: [debug]}}}"),
            [
                (
                    'service::pipelines: pipeline "profiles": profiling signal support is at alpha level, '
                    'gated under the "service.profilesSupport" feature gate'
                )
            ],
        ),
        (
            pipelines(
                "{pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}",
                "extensions: {watch: {store: mongo, other: dbug}}\n",
            ),
            [
                'extensions::watch: references exporter "mongo" which is not configured',
                'extensions::watch: references exporter "dbug" which is not configured',
            ],
        ),
        (
            pipelines(
                "{pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}",
                "connectors: {join: }\nprocessors: {step: }\n",
            ).replace("processors: {step: , step/2: }\n", "")
            + "receivers::otlp::protocols: {grpc: {enabled: false}}\n",
            [],
        ),
    ],
)
def test_validation_texts(loader, text, expected):
    """What does not hold although each value fits gives the Collector's text."""
    if not expected:
        text = text.replace("receivers: {otlp: {protocols: {grpc: }}}\n", "")
        expected = [
            "receivers::otlp: must specify at least one protocol when using the OTLP receiver"
        ]
    assert [problem.splitlines()[0] for problem in loader.errors(text)] == expected


def test_a_dangling_reference_names_line_path_and_nearest_id(loader):
    """A reference to nothing is located in its list, with the nearest id that exists."""
    text = (
        "receivers: {otlp: {protocols: {grpc: }}}\n"
        "exporters: {debug: , mongodb: }\n"
        "service:\n  pipelines:\n    traces:\n      receivers: [otlp]\n"
        "      exporters:\n        - debug\n        - mongo\n"
    )
    assert loader.errors(text) == [
        (
            'service::pipelines::traces: references exporter "mongo" which is not configured\n'
            '  c.yaml:9, service.pipelines.traces.exporters[1]; did you mean "mongodb"?'
        )
    ]


def test_rules_of_components_and_sections_name_their_key(loader):
    """A component's own rule and a shared section's rule carry the :: path and the key's line."""
    assert loader.errors(
        loader.good,
        "receivers:\n  otlp:\n    protocols:\n      grpc: {enabled: false}\n",
        "exporters:\n  debug:\n    sending_queue:\n      queue_size: 0\n",
    ) == [
        (
            "receivers::otlp: must specify at least one protocol when using the OTLP receiver\n"
            "  c1.yaml:2, receivers.otlp"
        ),
        (
            "exporters::debug::sending_queue: `queue_size` must be positive\n"
            "  c2.yaml:4, exporters.debug.sending_queue.queue_size"
        ),
    ]


def test_one_typo_is_one_message(loader):
    """A component that does not decode is still configured for those who refer to it."""
    assert len(loader.errors(loader.good, "exporters: {debug: {cuont: 1}}\n")) == 1
    assert len(loader.errors(loader.good.replace("debug", "dbug"))) == 1


CONNECTED = """\
receivers: {{otlp: {{protocols: {{grpc: }}}}}}
exporters: {{debug: }}
connectors: {{{connectors}}}
service: {{pipelines: {{{pipelines}}}}}
"""


@pytest.mark.parametrize(
    ("connectors", "written", "expected"),
    [
        (
            "join: ",
            "traces: {receivers: [otlp], exporters: [join]}, metrics: {receivers: [join], exporters: [debug]}",
            None,
        ),
        (
            "join: ",
            "traces: {receivers: [otlp, join], exporters: [debug]}",
            (
                'failed to build pipelines: connector "join" used as receiver in [traces] pipeline but '
                "not used in any supported exporter pipeline"
            ),
        ),
        (
            "join: ",
            "logs/in: {receivers: [otlp], exporters: [debug, join]}",
            (
                'failed to build pipelines: connector "join" used as exporter in [logs/in] pipeline but '
                "not used in any supported receiver pipeline"
            ),
        ),
        (
            "join: ",
            "traces: {receivers: [otlp, join], exporters: [debug, join]}",
            (
                'failed to build pipelines: cycle detected: connector "join" (traces to traces) -> '
                'connector "join" (traces to traces)'
            ),
        ),
    ],
)
def test_connectors(loader, connectors, written, expected):
    """A connector is used on both sides, and never in a circle."""
    text = CONNECTED.format(connectors=connectors, pipelines=written)
    if expected is None:
        assert list(loader(text).connectors) == ["join"]
    else:
        assert [problem.splitlines()[0] for problem in loader.errors(text)] == [expected]


def test_a_connector_may_not_share_an_id(loader, tmp_path):
    """A connector with the id of an exporter is refused with the advice to rename it."""
    text = loader.good + f'connectors:\n  "{loader.outlet}": \n'
    more = f'exporters:\n  "{loader.outlet}": \n'
    name = f'"{loader.outlet}"'
    assert loader.errors(text, more)[0].splitlines()[0] == (
        f"connectors::{loader.outlet}: ambiguous ID: Found both {name} exporter and {name} "
        "connector. Change one of the components' IDs to eliminate ambiguity (e.g. rename "
        f'{name} connector to "{loader.outlet}/connector")'
    )


def test_the_report_carries_the_prefix_of_each_stage(loader):
    """Decoding and validation problems come in one report, each stage under its prefix."""
    error = loader.report(
        loader.good, "exporters: {debug: {count: x}}\nservice: {extensions: [x]}\n"
    )
    decoding = (
        "failed to get config: cannot unmarshal the configuration: decoding failed due to the "
        "following error(s):\n\n'exporters' error reading configuration for \"debug\": 'count' "
    )
    validation = 'service::extensions: references extension "x" which is not configured\n'
    assert str(error).startswith(decoding)
    assert f"\n\ninvalid configuration: {validation}" in str(error)
    assert f"\n\n{validation}" in error.report()
    assert error.problems == [*error.decoding, *error.validation]


def test_no_configuration_at_all(loader):
    """Without --config the Collector's text comes with the fix."""
    assert str(loader.report()).startswith("at least one config flag must be provided\n  name one")


def test_telemetry_keys_without_effect_are_warned_about(loader):
    """Accepted keys that do nothing yet are named in a warning, the others are silent."""
    config = loader(
        loader.good,
        "service:\n  telemetry:\n    logs: {level: warn, encoding: json}\n"
        "    metrics:\n      readers: [{pull: {exporter: {prometheus: {port: 0}}}}]\n"
        "      views: [{}]\n"
        "    resource: {service.name: x}\n",
    )
    assert [warning.replace(f"{loader.folder}/", "") for warning in config.warnings] == [
        "service.telemetry.logs.encoding is accepted but has no effect yet\n  c1.yaml:3",
        "service.telemetry.metrics.views is accepted but has no effect yet\n  c1.yaml:6",
        "service.telemetry.resource is accepted but has no effect yet\n  c1.yaml:7",
    ]


def test_secrets_are_masked(loader):
    """A secret prints as [REDACTED] wherever a configuration is printed."""
    config = loader(*loader.with_debug("secret: abc\nheaders: {authorization: abc}"))
    assert "abc" not in repr(config)
    assert "[REDACTED]" in repr(config)
