"""
The settings, in one table: the fields of `Settings`.

Each field names its environment variables, its default, how it is read and what it means.
`configure()`, the start under opentelemetry-instrument, `telemetry doctor`, the error messages and
the docs test all read this table. Standard OTEL_* names come first; own names exist only where
OpenTelemetry has none. Order: argument > variable > default; an empty variable counts as unset.

Settings marked `per_signal` also have a variable per signal, as OpenTelemetry defines it
(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT); `Settings.of` resolves it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from telemetry import _diagnostics
from telemetry._config import standard_variables
from telemetry._config.kinds import (
    FLAG,
    HEADERS,
    KEYS,
    LEVELS,
    LOG_LEVELS,
    LONG_SECONDS,
    MODES,
    PAIRS,
    PATTERNS,
    REDACTION,
    SECONDS,
    TEXT,
    URL,
    WHOLE,
    WORDS,
    Kind,
    checked,
    choice,
    context_keys,
)
from telemetry._redaction.policy import Redaction
from telemetry.attributes import CONTEXT
from telemetry.errors import ConfigError

SIGNALS: Final = ("traces", "metrics", "logs")
PROTOCOLS: Final = ("http/protobuf", "grpc")
FORMATS: Final = ("text", "json", "logfmt", "none")
FAST_PATHS: Final = ("auto", "off")
"""More names or pairs than a setting has; what has no end ends here."""


def _setting(
    default: Any, kind: Kind, *env: str, doc: str, per_signal: bool = False, secret: bool = False
) -> Any:
    table = {"env": env, "kind": kind, "doc": doc, "per_signal": per_signal, "secret": secret}
    return field(default=default, metadata=table)


def _no_overrides() -> dict[tuple[str, str], Any]:
    return {}


def _no_sources() -> dict[str, str]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The effective settings of this process."""

    disabled: bool = _setting(
        False, FLAG, "OTEL_SDK_DISABLED", doc="Build nothing: no provider, handler or thread."
    )
    service_name: str | None = _setting(
        None,
        TEXT,
        "OTEL_SERVICE_NAME",
        doc="The name of the service; unset, OpenTelemetry says `unknown_service`.",
    )
    resource_attributes: Mapping[str, str] | None = _setting(
        None,
        PAIRS,
        "OTEL_RESOURCE_ATTRIBUTES",
        doc="What else is true of the whole process, such as `deployment.environment.name`.",
    )
    traces_exporter: tuple[str, ...] = _setting(
        ("otlp",),
        WORDS,
        "OTEL_TRACES_EXPORTER",
        doc="Where spans go: `otlp`, `console`, `none` or another installed exporter.",
    )
    metrics_exporter: tuple[str, ...] = _setting(
        ("otlp",), WORDS, "OTEL_METRICS_EXPORTER", doc="Where metrics go; as for spans."
    )
    logs_exporter: tuple[str, ...] = _setting(
        ("otlp",), WORDS, "OTEL_LOGS_EXPORTER", doc="Where log records go; as for spans."
    )
    protocol: str = _setting(
        "http/protobuf",
        choice(*PROTOCOLS),
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        doc="How OTLP travels: `http/protobuf` or `grpc`; grpc is imported only when asked for.",
        per_signal=True,
    )
    endpoint: str = _setting(
        "http://localhost:4318",
        URL,
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        doc="The collector's base URL; `/v1/traces` and so on are added. "
        "A variable per signal is taken as it is.",
        per_signal=True,
    )
    headers: Mapping[str, str] | None = _setting(
        None,
        HEADERS,
        "OTEL_EXPORTER_OTLP_HEADERS",
        doc="Headers of every request, such as an authorization token.",
        per_signal=True,
        secret=True,
    )
    timeout: float = _setting(
        10.0,
        SECONDS,
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        doc="Seconds that one request may take in all.",
        per_signal=True,
    )
    compression: str = _setting(
        "none",
        choice("none", "gzip", "deflate"),
        "OTEL_EXPORTER_OTLP_COMPRESSION",
        doc="`gzip`, `deflate` or `none`.",
        per_signal=True,
    )
    certificate: str | None = _setting(
        None,
        TEXT,
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
        doc="File with the certificate authorities to trust.",
        per_signal=True,
    )
    client_certificate: str | None = _setting(
        None,
        TEXT,
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        doc="File with this client's certificate (mTLS).",
        per_signal=True,
    )
    client_key: str | None = _setting(
        None,
        TEXT,
        "OTEL_EXPORTER_OTLP_CLIENT_KEY",
        doc="File with this client's private key (mTLS).",
        per_signal=True,
    )
    span_delay_ms: int = _setting(
        1000,
        WHOLE,
        "OTEL_BSP_SCHEDULE_DELAY",
        doc="How long a span waits for company, in milliseconds; the first ones wait 100.",
    )
    span_queue_size: int = _setting(
        2048, WHOLE, "OTEL_BSP_MAX_QUEUE_SIZE", doc="How many spans may wait to be sent."
    )
    span_batch_size: int = _setting(
        512, WHOLE, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", doc="How many spans go in one request."
    )
    log_delay_ms: int = _setting(
        1000,
        WHOLE,
        "OTEL_BLRP_SCHEDULE_DELAY",
        doc="How long a log record waits for company, in milliseconds; the first ones wait 100.",
    )
    log_queue_size: int = _setting(
        2048, WHOLE, "OTEL_BLRP_MAX_QUEUE_SIZE", doc="How many log records may wait to be sent."
    )
    log_batch_size: int = _setting(
        512,
        WHOLE,
        "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
        doc="How many log records go in one request.",
    )
    metric_interval_ms: int = _setting(
        60_000,
        WHOLE,
        "OTEL_METRIC_EXPORT_INTERVAL",
        doc="How often metrics are collected and sent, in milliseconds.",
    )
    queue_bytes: int = _setting(
        8 * 1024 * 1024,
        WHOLE,
        "TELEMETRY_QUEUE_BYTES",
        "OTEL_PYTHON_QUEUE_BYTES",
        doc="How many bytes of spans, and as many of log records, may wait to be sent.",
    )
    exit_timeout: float = _setting(
        5.0,
        SECONDS,
        "TELEMETRY_EXIT_TIMEOUT",
        "OTEL_PYTHON_EXIT_TIMEOUT",
        doc="Seconds that the exit of the process may wait for delivery, over all signals.",
    )
    sigterm: bool = _setting(
        True,
        FLAG,
        "TELEMETRY_SIGTERM",
        doc="Deliver what waits before SIGTERM ends the process; only where it would end it at once.",
    )
    spool_dir: str | None = _setting(
        None,
        TEXT,
        "TELEMETRY_SPOOL_DIR",
        "OTEL_PYTHON_SPOOL_DIR",
        doc="Folder for what cannot be sent in time; the next process delivers it. Unset, it is lost.",
    )
    spool_bytes: int = _setting(
        256 * 1024 * 1024,
        WHOLE,
        "TELEMETRY_SPOOL_BYTES",
        doc="How many bytes the files in the spool folder may take together.",
    )
    spool_max_age: float = _setting(
        259_200.0,
        LONG_SECONDS,
        "TELEMETRY_SPOOL_MAX_AGE",
        doc="Seconds after which what lies in the spool is no longer worth delivering (3 days).",
    )
    spool_write_through: bool = _setting(
        False,
        FLAG,
        "TELEMETRY_SPOOL_WRITE_THROUGH",
        doc="Write each record to the spool before the call returns: it survives SIGKILL, "
        "and the call pays for encoding it.",
    )
    fast_path: str = _setting(
        "auto",
        choice(*FAST_PATHS),
        "TELEMETRY_FAST_PATH",
        doc="`auto` takes shorter ways around the SDK where its version is known and a self-test "
        "at start finds no difference; `off` leaves every record to the SDK.",
    )
    log_level: str = _setting(
        "INFO",
        choice(*LOG_LEVELS),
        "LOG_LEVEL",
        doc="Level of the root logger. Unset, it becomes INFO only if the application "
        "has not chosen a level.",
    )
    log_levels: Mapping[str, str] | None = _setting(
        None,
        LEVELS,
        "TELEMETRY_LOG_LEVELS",
        doc="Levels of single loggers, such as `app.db=DEBUG,urllib3=WARNING`.",
    )
    log_format: str = _setting(
        "text",
        choice(*FORMATS),
        "LOG_FORMAT",
        "OTEL_PYTHON_CONSOLE_FORMAT",
        doc="Lines on stderr: `text`, `json`, `logfmt` or `none`. Unset, text is written only "
        "while the application has no handler of its own.",
    )
    baggage_keys: tuple[str, ...] = _setting(
        ("correlation_id",),
        Kind(context_keys, "some of " + ", ".join(CONTEXT.values())),
        "TELEMETRY_BAGGAGE_KEYS",
        doc="The ids that travel to other services in the `baggage` header, and are taken from it.",
    )
    redaction: str | Redaction = _setting(  # noqa: RUF009 - as the others: `_setting` is a field()
        "on",
        REDACTION,
        "TELEMETRY_REDACTION",
        doc="What may leave the process: `on` (secrets, wallet addresses and e-mails may not), "
        "`strict` (texts under unknown names neither) or `off`; as an argument also a `Redaction`.",
    )
    redaction_keys: Mapping[str, str] | None = _setting(
        None,
        KEYS,
        "TELEMETRY_REDACTION_KEYS",
        doc="Further names whose values are secret, such as `customer_name=hash,iban`.",
    )
    redaction_allow_keys: tuple[str, ...] = _setting(
        (),
        WORDS,
        "TELEMETRY_REDACTION_ALLOW_KEYS",
        doc="Names whose values are left as they are.",
    )
    redaction_patterns: Mapping[str, str] | None = _setting(
        None,
        PATTERNS,
        "TELEMETRY_REDACTION_PATTERNS",
        doc="Further patterns to redact, as a JSON object: rule -> regular expression.",
    )
    redaction_modes: Mapping[str, str] | None = _setting(
        None,
        MODES,
        "TELEMETRY_REDACTION_MODES",
        doc="What rules do, such as `email=hash,wallet=mask`: mask, shorten, hash or drop.",
    )
    diagnostics: str = _setting(
        "warn",
        choice(*_diagnostics.LEVELS),
        "OTEL_LOG_LEVEL",
        doc="What `telemetry` says about itself on stderr: none, error, warn, info or debug.",
    )
    report: bool = _setting(
        False,
        FLAG,
        "TELEMETRY_REPORT",
        doc="Say in one line at exit what became of every record; so does `OTEL_LOG_LEVEL=debug`.",
    )
    sources: Mapping[str, str] = field(default_factory=_no_sources, repr=False)
    overrides: Mapping[tuple[str, str], Any] = field(default_factory=_no_overrides, repr=False)

    def of(self, signal: str, name: str) -> Any:
        """The setting `name` for one signal: argument > variable of the signal > variable."""
        if self.sources.get(name) != "argument" and (signal, name) in self.overrides:
            return self.overrides[signal, name]
        return getattr(self, name)

    def redacting(self) -> Redaction:
        """The redaction of the argument, with what the other settings add to it."""
        whole = self.redaction
        base = whole if isinstance(whole, Redaction) else Redaction(level=whole)
        keys = base.keys if isinstance(base.keys, Mapping) else dict.fromkeys(base.keys, "mask")
        return Redaction(
            level=base.level,
            keys={**keys, **(self.redaction_keys or {})},
            allow_keys=(*base.allow_keys, *self.redaction_allow_keys),
            patterns={**base.patterns, **(self.redaction_patterns or {})},
            modes={**base.modes, **(self.redaction_modes or {})},
            rules=base.rules,
        )

    def given(self, name: str) -> bool:
        """Whether somebody chose this, as opposed to the default."""
        return name in self.sources


TABLE: Final = {item.name: item.metadata for item in fields(Settings) if item.metadata}
"""Name -> {env, kind, doc, per_signal, secret}, in the order of the docs."""
DEFAULTS: Final = {item.name: item.default for item in fields(Settings) if item.metadata}


def _shown(given: Any) -> str:
    try:
        return repr(given)[:100]
    except Exception:
        return f"<unprintable {type(given).__name__}>"


def signal_variable(variable: str, signal: str) -> str:
    """OTEL_EXPORTER_OTLP_ENDPOINT, traces -> OTEL_EXPORTER_OTLP_TRACES_ENDPOINT."""
    return variable.replace("OTEL_EXPORTER_OTLP_", f"OTEL_EXPORTER_OTLP_{signal.upper()}_", 1)


def read(
    arguments: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Settings, list[str]]:
    """
    The effective settings, and every problem found on the way.

    A setting with a problem has its next best value; `load` turns problems into an error.

    Args:
        arguments: by the names of the table; None means not given.
        environ: where variables are read from; the process's by default.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    overrides: dict[tuple[str, str], Any] = {}
    problems: list[str] = []

    def take(where: str, given: Any, table: Mapping[str, Any]) -> Any:
        """Read one value; None, and a problem noted, if it is no good."""
        try:
            return table["kind"].read(given)
        except ConfigError as error:
            problems.extend(f"{where}: {text}" for text in error.problems)
            return getattr(error, "value", None)
        except Exception:
            shown = "[REDACTED]" if table["secret"] else _shown(given)
            fix = table["kind"].words
            problems.append(f"{where}={shown} cannot be used; give {fix}, or leave it out")
            return None

    for name, table in TABLE.items():
        given = [
            (variable, environ.get(variable, "").strip()) for variable in reversed(table["env"])
        ]
        candidates: list[tuple[str, str, Any]] = [
            (variable, variable, text) for variable, text in given if text
        ]
        argument = (arguments or {}).get(name)
        if argument is not None:
            candidates.append(("argument", name, argument))
        for source, where, candidate in candidates:
            value = take(where, candidate, table)
            if value is not None:
                values[name], sources[name] = value, source
        for signal in SIGNALS if table["per_signal"] else ():
            variable = signal_variable(table["env"][0], signal)
            if environ.get(variable, "").strip():
                value = take(variable, environ[variable].strip(), table)
                if value is not None:
                    overrides[signal, name] = value
    problems.extend(standard_variables.problems(environ).values())
    settings = Settings(**values, sources=sources, overrides=overrides)
    if settings.redaction_modes:
        try:
            checked(settings.redacting())
        except ConfigError as error:
            where = TABLE["redaction_modes"]["env"][0]
            problems += [f"{where}: {text}" for text in error.problems]
            settings = replace(settings, redaction_modes=None)
    return settings, problems


def load(
    arguments: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """The effective settings; raises ConfigError with all problems at once."""
    settings, problems = read(arguments, environ)
    if problems:
        raise ConfigError(problems)
    return settings
