"""The table of settings: argument > variable > default, and errors that say what to do."""

import inspect

import pytest

import telemetry
from telemetry._config import environment, exporters
from telemetry._config import settings as _settings


def test_configure_takes_exactly_the_settings_of_the_table():
    """Each setting is an argument of configure(), in the same order, None meaning not given."""
    parameters = inspect.signature(telemetry.configure).parameters
    assert list(parameters) == list(_settings.TABLE)
    assert {parameter.default for parameter in parameters.values()} == {None}


def test_each_setting_has_help_and_a_variable():
    """The table is the documentation: no row without words."""
    assert [name for name, row in _settings.TABLE.items() if not row["doc"] or not row["env"]] == []


def test_argument_wins_over_variable_wins_over_default():
    """The order of precedence, with the source that doctor shows."""
    environ = {"OTEL_SERVICE_NAME": "from-env", "LOG_LEVEL": "debug", "LOG_FORMAT": ""}
    settings, problems = _settings.read({"service_name": "from-argument"}, environ)
    assert problems == []
    assert (settings.service_name, settings.log_level, settings.log_format) == (
        "from-argument",
        "DEBUG",
        "text",
    )
    assert settings.sources == {"service_name": "argument", "log_level": "LOG_LEVEL"}


def test_variables_of_a_signal():
    """A variable of one signal wins over the common one, an argument over both."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4318",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs:4318/in",
    }
    settings, _ = _settings.read({}, environ)
    assert settings.of("logs", "endpoint") == "http://logs:4318/in"
    assert settings.of("traces", "endpoint") == "http://all:4318"
    settings, _ = _settings.read({"endpoint": "http://here:1"}, environ)
    assert settings.of("logs", "endpoint") == "http://here:1"


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("OTEL_SDK_DISABLED", "TRUE", "disabled", True),
        ("OTEL_SDK_DISABLED", "false", "disabled", False),
        ("OTEL_BSP_SCHEDULE_DELAY", " 250 ", "span_delay_ms", 250),
        ("OTEL_TRACES_EXPORTER", "otlp, console", "traces_exporter", ("otlp", "console")),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1, b=x%20y", "headers", {"a": "1", "b": "x y"}),
        ("TELEMETRY_EXIT_TIMEOUT", "0.5", "exit_timeout", 0.5),
        ("OTEL_PYTHON_EXIT_TIMEOUT", "2", "exit_timeout", 2.0),
        ("TELEMETRY_BAGGAGE_KEYS", "correlation_id,request_id", "baggage_keys", None),
        ("OTEL_LOG_LEVEL", "DEBUG", "diagnostics", "debug"),
    ],
)
def test_variables_are_read_by_kind(variable, text, name, value):
    """Texts of the environment become values of the right type."""
    settings, problems = _settings.read({}, {variable: text})
    assert problems == []
    expected = ("correlation_id", "request_id") if value is None else value
    assert getattr(settings, name) == expected


def test_all_problems_are_listed_with_value_and_fix():
    """One error for everything, so that nobody fixes one variable per start; secrets masked."""
    environ = {
        "OTEL_BSP_MAX_QUEUE_SIZE": "many",
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "-1",
        "OTEL_EXPORTER_OTLP_HEADERS": "secret",
    }
    arguments = {"endpoint": "localhost:4318", "log_format": "xml", "span_batch_size": 0}
    with pytest.raises(telemetry.ConfigError) as caught:
        _settings.load(arguments, environ)
    assert sorted(caught.value.problems) == [
        (
            "OTEL_BSP_MAX_QUEUE_SIZE='many' cannot be used; give a whole number, 1 or more,"
            " or leave it out"
        ),
        (
            "OTEL_EXPORTER_OTLP_HEADERS=[REDACTED] cannot be used; give key=value pairs, separated by"
            " commas, or leave it out"
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT='-1' cannot be used; give a number of seconds, 0 or"
            " more, or leave it out"
        ),
        (
            "endpoint='localhost:4318' cannot be used; give a URL such as http://localhost:4318,"
            " or leave it out"
        ),
        "log_format='xml' cannot be used; give one of text, json, logfmt, none, or leave it out",
        "span_batch_size=0 cannot be used; give a whole number, 1 or more, or leave it out",
    ]


def test_a_bad_value_falls_back_to_the_next_best():
    """Under the wrapper a bad variable costs its own setting and nothing else."""
    settings, problems = _settings.read({}, {"OTEL_BSP_MAX_QUEUE_SIZE": "x", "LOG_LEVEL": "ERROR"})
    assert (settings.span_queue_size, settings.log_level, len(problems)) == (2048, "ERROR", 1)


def test_the_wrappers_flags_are_settings():
    """Each constant for the wrapper names itself and is a variable of the table."""
    constants = {name: value for name, value in vars(environment).items() if name[:5] == "OTEL_"}
    known = {variable for row in _settings.TABLE.values() for variable in row["env"]}
    assert all(name == value for name, value in constants.items())
    assert set(constants) <= known


@pytest.mark.parametrize(
    ("endpoint", "public"),
    [
        ("http://collector.acme.io:4318", "collector.acme.io"),
        ("http://8.8.8.8:4318", "8.8.8.8"),
        ("http://[2606:4700::1111]:4318", "2606:4700::1111"),
        ("https://collector.acme.io", ""),
        ("http://localhost:4318", ""),
        ("http://127.0.0.1:4318", ""),
        ("http://10.1.2.3:4318", ""),
        ("http://[fd00::1]:4318", ""),
        ("http://otel-collector:4318", ""),
        ("http://otel-collector.monitoring:4318", ""),
        ("http://collector.monitoring.svc:4318", ""),
        ("http://collector.internal.:4318", ""),
        ("http://[broken", ""),
    ],
)
def test_b78_plain_http_to_a_public_host_is_told(endpoint, public):
    """B78: told at the start and by doctor, with the fix; never for hosts of one's own network."""
    settings, _ = _settings.read({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
    told = exporters.in_the_open(settings)
    everything = f"sent without TLS: traces, metrics, logs to {public}"
    assert told == (f"{everything}: anybody on the way can read it; use https" if public else "")


def test_b78_only_what_is_sent_over_otlp_counts(run):
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs.acme.io/in",
        "OTEL_TRACES_EXPORTER": "none",
    }
    told = exporters.in_the_open(_settings.read({}, environ)[0])
    assert told.startswith("sent without TLS: logs to logs.acme.io:")
    done = run(
        """
        import telemetry
        telemetry.configure(
            endpoint="http://192.0.2.1:4318", exit_timeout=0.1, log_format="none"
        )
        telemetry.configure()
        """,
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT="http://logs.acme.io/in",
    )
    assert done.stderr.count("otelier: sent without TLS") == 0
    done = run("import telemetry; telemetry.configure(); telemetry.configure()", **environ)
    assert done.stderr.count("otelier: sent without TLS: logs to logs.acme.io") == 1
