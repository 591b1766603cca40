"""
The five nouns of the collector: Signal, Batch, Consume, Host, Health.

In flight, data is the OTLP protobuf request itself, in a thin `Batch` (style.md section 4: decoding
to protobuf is nearly free, Python objects cost twelve times more, so they are made once, in a
store). A processor wraps the next consumer as ASGI middleware wraps an app; an exporter is a
consumer that calls nobody. Components are plain classes with three habits:

- `Config`, a frozen `msgspec.Struct` whose fields are documented by a string under each;
- `__init__(config, host)` for exporters and extensions, `__init__(config, host, next)` for
  processors (`next: Consume`) and receivers (`next: Mapping[Signal, Consume]`, only the signals
  that have a pipeline);
- optionally an async context manager, which *is* the life cycle: entered at start, left at stop.

No base classes: the protocols below say what is promised, and anybody's class may keep it.
"""

import enum
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Protocol, TypeVar, runtime_checkable

import msgspec


class Signal(enum.StrEnum):
    """What a batch holds; the value is the word in YAML, paths and answers."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


@dataclass(slots=True, frozen=True)
class Request:
    """
    Where a batch came from; everything here is fixed when the bytes arrive.

    Args:
        received_at_unix_nano: the collector's clock; retention runs on it, never on the client's.
        key: 16 bytes, a hash of tenant, signal and decompressed body. An SDK that resends a
            request sends identical bytes, so equal keys mean the same request. Identities of log
            records are made from it.
        tenant: whose data this is; empty while the collector serves one tenant.
        transport: "grpc", "http" or another word of the receiver, for counters.
    """

    received_at_unix_nano: int
    key: bytes
    tenant: str = ""
    transport: str = ""


@dataclass(slots=True)
class Batch:
    """
    One OTLP export request on its way.

    Args:
        signal: which of the three requests `message` is.
        message: the ExportTraceServiceRequest, ExportMetricsServiceRequest or
            ExportLogsServiceRequest. After `await next(batch)` it is no longer yours.
        request: where it came from.
        wire: the protobuf bytes that `message` was decoded from, for the durable log and for
            pass-through exporters; None as soon as a processor has changed the message.
        made: the documents of this batch once somebody has asked for them, so that two stores
            share the costliest step.
    """

    signal: Signal
    message: Any
    request: Request
    wire: bytes | None = None
    made: list[dict[str, Any]] | None = None

    def changed(self) -> None:
        """Say that `message` was edited: what was derived from it is no longer true."""
        self.wire = None
        self.made = None


class Secret(str):
    """A configuration value that no output may show: `repr`, `print-config` and logs mask it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "[REDACTED]"


class Duration(float):
    """Seconds. In YAML it is Go's text ("1m30s"); a bare integer is nanoseconds, as in Go."""

    __slots__ = ()


T = TypeVar("T")
OnRequest = Annotated[T | None, msgspec.Meta(extra={"null": "defaults"})]
"""A section that is off when its key is absent and on, with defaults, when the key stands empty
(`grpc:`). A plain `Section | None = None` stays off when the key stands empty (`tls:`)."""

ExporterId = Annotated[str, msgspec.Meta(extra={"references": "exporters"})]
"""A field that names a configured exporter; the loader refuses a dangling name."""

Consume = Callable[[Batch], Awaitable[None]]
"""
Take a batch. Returning means that it is taken for good (stored, or handed to something that keeps
it). `Permanent` means that it can never be taken, `Retryable` that the sender must keep it. Any
other exception counts as `Retryable`. A consumer may also have `admit()`, which raises `Retryable`
while it would take nothing; receivers ask before they read and decode a body.
"""


class Counters(Protocol):
    """The part of `stats.Stats` that components use."""

    def add(self, name: str, amount: int = 1, **attributes: str) -> None:
        """Count `amount` more of `name`."""

    def set(self, name: str, value: int, **attributes: str) -> None:
        """Set a gauge: a number that may also fall, such as the length of a queue."""

    def time(self, name: str, seconds: float, **attributes: str) -> None:
        """Count how long something took."""

    def watch(self, publish: Callable[[], None]) -> None:
        """Call this before numbers are looked at: it sets gauges that time changes."""

    def unwatch(self, publish: Callable[[], None]) -> None:
        """Call this no more."""


@dataclass(slots=True)
class Health:
    """Whether the collector as a whole takes data; `health_check` answers from it."""

    state: str = "starting"  # starting, ready, stopping
    since_unix_s: float = 0.0


ReloadConfig = Callable[[], Awaitable[str]]
"""
Read the configuration again and make it true; the answer says what changed. `ConfigError` and
`StartFailed` mean that it is refused, and that everything goes on as before.
"""


@dataclass(slots=True, frozen=True)
class Host:
    """
    What the service gives to each component.

    Args:
        id: the component's id in YAML, `type` or `type/name`.
        stats: the process-wide counters.
        log: a logger named after the component; never used once per item.
        health: shared by all components.
        stores: the exporters that can be asked questions, by id. Filled before extensions start.
            Whoever looks into it is started anew when it changes.
        reload: for whoever takes orders from an operator; None where nothing can be read again.
        extensions: those that run, by id; it changes while the collector runs, so look again.
    """

    id: str
    stats: Counters
    log: logging.Logger
    health: Health = field(default_factory=Health)
    stores: Mapping[str, Any] = field(default_factory=dict)
    reload: ReloadConfig | None = None
    extensions: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Component(Protocol):
    """Anything that can be named in YAML."""

    Config: ClassVar[type[msgspec.Struct]]


def admit(consume: Consume) -> None:
    """
    Ask a consumer whether it takes anything now, before there is a batch to hand over.

    A consumer that may say no has an `admit` of its own; most have none.

    Raises:
        Retryable: it takes nothing now.
    """
    ask = getattr(consume, "admit", None)
    if ask is not None:
        ask()
