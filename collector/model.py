"""
The nouns of the collector: Signal, Batch, Consume, Host, Health, and what a Component is.

In flight, data is the OTLP protobuf request itself, in a thin `Batch` (style.md section 4: decoding
to protobuf is nearly free, Python objects cost twelve times more, so they are made once, in a
store). A processor wraps the next consumer as ASGI middleware wraps an app; an exporter is a
consumer that calls no other. Components are plain classes with three habits:

- `Config`, a frozen `msgspec.Struct` whose fields are documented by a string under each;
- `__init__(config, host)` for exporters and extensions, `__init__(config, host, next)` for
  processors (`next: Consume`) and receivers (`next: Mapping[Signal, Consume]`, only the signals
  that have a pipeline);
- optionally an async context manager, which *is* the life cycle: entered at start, left at stop.

No base classes: the protocols below say what is promised, and any class may keep it. What a
component may have beyond these three is the table at `Component`.
"""

import enum
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
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
        made: the documents of this batch once a store has asked for them, so that two stores
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
"""A field that names a configured exporter; the loader rejects a dangling name."""

ExtensionId = Annotated[str, msgspec.Meta(extra={"references": "extensions"})]
"""A field that names a configured extension."""

Consume = Callable[[Batch], Awaitable[None]]
"""
Take a batch. Returning means that it is taken for good (stored, or handed to something that keeps
it). `Permanent` means that it can never be taken, `Retryable` that the sender must keep it. Any
other exception counts as `Retryable`. A consumer may also have `admit()`: see `Admits`.
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
    problems: dict[str, list[str]] = field(default_factory=dict)
    """What an operator must see though data is taken, by component; none while all is well."""


ReloadConfig = Callable[[], Awaitable[str]]
"""
Read the configuration again and make it true; the answer says what changed. `ConfigError` and
`StartFailed` mean that it is rejected, and that everything goes on as before.
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
            An extension that looks into it is started anew when it changes.
        reload: for a component that takes orders; None where nothing can be read again.
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
    """
    Anything that can be named in YAML.

    `Config` is all that it must have beside `__init__` and, unless it is an extension, a call. What
    else it may have is here: the service, `collector validate` and other components look for these
    members and for no others. Each is optional; leaving it out means what its protocol says.

        signals       class   the signals that it is made for            TakesSomeSignals
        mutates       class   a processor that edits messages            Mutates
        connects      class   the pairs of signals of a connector        Connects
        check         class   problems of a configuration                Checks
        admit         object  whether it takes a batch now               Admits
        describe      object  where it listens or writes                 Describes
        endpoints     object  the addresses that it listens on           Listens
        durability    object  what its success means                     Durable
        find          object  that it is a store and answers questions   Answers, stores/base.py
        authenticate  object  that it knows credentials                  extensions/bearertokenauth.py
    """

    Config: ClassVar[type[msgspec.Struct]]


@runtime_checkable
class TakesSomeSignals(Protocol):
    """
    Made for some signals only; without `signals` a component is made for all.

    A pipeline of another signal that names it is a problem of the configuration.
    """

    signals: ClassVar[frozenset[Signal]]


@runtime_checkable
class Mutates(Protocol):
    """
    A processor that edits messages says `mutates = True`, and calls `Batch.changed` after an edit.

    It is given a copy where several pipelines share a batch. One that edits without saying so
    changes what the other pipelines get. Exporters never edit.
    """

    mutates: ClassVar[bool]


@runtime_checkable
class Connects(Protocol):
    """A connector that joins only these (from, to); without `connects` it joins all signals."""

    connects: ClassVar[Collection[tuple[Signal, Signal]]]


@runtime_checkable
class Checks(Protocol):
    """Rules about a configuration that its types cannot say."""

    @staticmethod
    def check(config: Any) -> Iterable[str]:
        """
        Every problem of a configuration, one line each with the fix; none when all is well.

        It opens nothing and asks no network: `collector validate` calls it. A section of a `Config`
        may have a `check(self)` for its own keys.
        """


@runtime_checkable
class Admits(Protocol):
    """A consumer that may say, before a body is read and decoded, that it takes nothing now."""

    def admit(self) -> None:
        """Return at once; raise `Retryable` while it would take nothing."""


@runtime_checkable
class Describes(Protocol):
    """A component that says at the start where it listens or writes."""

    def describe(self) -> str:
        """One line without secrets."""


@runtime_checkable
class Listens(Protocol):
    """A component that listens: protocol -> address, with the port that it really has."""

    endpoints: Mapping[str, str]


@runtime_checkable
class Durable(Protocol):
    """What the success of a call means: "answered after fsync"; shown behind `describe`."""

    @property
    def durability(self) -> str:
        """A few words; empty says nothing."""


@runtime_checkable
class Answers(Protocol):
    """
    A store: an exporter that can be asked questions. The whole contract is `stores.base.Store`.

    Extensions find it in `Host.stores`. Its requests are never joined: identities rest on them.
    """

    find: Callable[[Any], Awaitable[Any]]


def signals_of(cls: Any) -> frozenset[Signal]:
    """The signals that a class of components is made for."""
    return frozenset(map(Signal, cls.signals if isinstance(cls, TakesSomeSignals) else Signal))


def mutates(cls: Any) -> bool:
    """Whether a class of processors says that it edits messages."""
    return isinstance(cls, Mutates) and bool(cls.mutates)


def admit(consume: Consume) -> None:
    """
    Ask a consumer whether it takes anything now, before there is a batch to hand over.

    Raises:
        Retryable: it takes nothing now.
    """
    asked: object = consume
    if isinstance(asked, Admits):
        asked.admit()


def place_of(component: object) -> str:
    """Where a component listens or writes, and how durably; empty when it says nothing."""
    if isinstance(component, Describes):
        place = component.describe()
    elif isinstance(component, Listens):
        place = ", ".join(f"{name} {endpoint}" for name, endpoint in component.endpoints.items())
    else:
        return ""
    durability = component.durability if isinstance(component, Durable) else ""
    if not durability and isinstance(component, Answers):
        durability = "answered when stored"
    return f"{place} ({durability})" if durability else place
