"""
Metrics on the SDK path: the API's `MeterProvider` in front of one SDK provider for each reader.

Instruments live as long as the program and the state of a metric as long as the process. So what
`get_meter` gives is ours (`instruments`), and the SDK's provider is made for this process, by its
public constructor, with this process's reader, when the first measurement comes. A forked child
makes a new one: sums start at zero and no lock is inherited. A reader that is added (the test
kit, a Prometheus endpoint) gets an SDK provider of its own, so `add_metric_reader` works with every
release; it sees names and labels redacted, as they are measured.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.util.types import Attributes

from telemetry import _diagnostics, _values
from telemetry._export.record_redactor import Records
from telemetry._native import process_id
from telemetry._sdk import fork_locks, instruments
from telemetry._sdk.instruments import Guarded, Take

NAME: Final = 255


class Backend:
    """
    An SDK provider with its one reader.

    Args:
        reader: collects from it.
        resource: what the metrics are about.
        shown: redacts what this reader sees, while it is measured; None where that happens later.
        quicken: gives a faster way into an SDK instrument, or None.
    """

    def __init__(
        self,
        reader: MetricReader,
        resource: Resource,
        shown: Callable[[], Records] | None,
        quicken: Callable[[Any, Take], Take] | None,
    ) -> None:
        self._shown = shown
        self._quicken = quicken
        if shown is not None:
            seen = shown().redactor.attributes(resource.attributes)
            if seen is not resource.attributes:
                resource = Resource(dict(seen), resource.schema_url)
        self.provider = MeterProvider(
            metric_readers=[reader], resource=resource, shutdown_on_exit=False
        )
        self._made: dict[int, tuple[Guarded, Any]] = {}
        self._lock = threading.RLock()

    def taker(self, instrument: Guarded) -> Take:
        """What takes the measurements of an instrument here."""
        made = self.make(instrument)
        method = getattr(made, instruments.METHOD[instrument.kind])
        take = instruments.guarded(method)
        if self._shown is not None:
            return _redacted(take, self._shown)
        return take if self._quicken is None else self._quicken(made, take)

    def make(self, instrument: Guarded) -> Any:
        """
        The SDK's instrument, the same one each time.

        Of synchronous ones two threads may make one each: the SDK gives both the same. No lock is
        held then, as a callback that the SDK calls under its own lock may measure something.
        """
        found = self._made.get(id(instrument))
        if found is None:
            with self._lock if "callbacks" in instrument.arguments else contextlib.nullcontext():
                found = self._made.get(id(instrument))
                if found is None:
                    found = (instrument, self._created(instrument))
                    found = self._made.setdefault(id(instrument), found)
        return found[1]

    def _created(self, instrument: Guarded) -> Any:
        arguments, scope = dict(instrument.arguments), dict(instrument.meter)
        if self._shown is not None:
            redactor = self._shown().redactor
            for text in ("name", "description"):
                arguments[text] = redactor.text(arguments[text])
            scope["name"] = redactor.text(scope["name"])
            if scope["attributes"]:
                scope["attributes"] = redactor.attributes(scope["attributes"])
            if "callbacks" in arguments:
                arguments["callbacks"] = [
                    _redacted_callback(callback, self._shown) for callback in arguments["callbacks"]
                ]
        meter = self.provider.get_meter(**scope)
        return getattr(meter, instrument.kind)(**arguments)


def _redacted(take: Take, shown: Callable[[], Records]) -> Take:
    def redacted(amount: Any, attributes: Any, context: Any) -> None:
        labels = instruments.labels_of(attributes)
        if labels:
            labels = dict(shown().redactor.attributes(labels))
        take(amount, labels, context)

    return redacted


def _redacted_callback(
    callback: instruments.Callback, shown: Callable[[], Records]
) -> instruments.Callback:
    def redacted(options: metrics.CallbackOptions) -> list[metrics.Observation]:
        return [
            metrics.Observation(
                seen.value, dict(shown().redactor.attributes(dict(seen.attributes or {})))
            )
            for seen in callback(options)
        ]

    return redacted


class GuardedMeter(Meter):
    """
    The instruments of one scope.

    Args:
        provider: ours.
        scope: the arguments of `get_meter`.
    """

    def __init__(self, provider: "GuardedMeterProvider", scope: dict[str, Any]) -> None:
        super().__init__(scope["name"], scope["version"], scope["schema_url"])
        self._provider = provider
        self._scope = scope

    def _create(self, kind: str, name: Any, unit: Any, description: Any, **more: Any) -> Any:
        arguments = {
            "name": name if type(name) is str else _values.text(name, NAME),
            "unit": unit if type(unit) is str else _values.text(unit or "", NAME),
            "description": (
                description if type(description) is str else _values.text(description or "")
            ),
            **more,
        }
        return self._provider.instrument(self._scope, kind, arguments)

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Any:
        """A sum that grows."""
        return self._create("create_counter", name, unit, description)

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> Any:
        """A sum that grows and shrinks."""
        return self._create("create_up_down_counter", name, unit, description)

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Any = None,
    ) -> Any:
        """A distribution."""
        bounds = explicit_bucket_boundaries_advisory
        given = {} if bounds is None else {"explicit_bucket_boundaries_advisory": bounds}
        return self._create("create_histogram", name, unit, description, **given)

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> Any:
        """The latest value."""
        return self._create("create_gauge", name, unit, description)

    def create_observable_counter(
        self, name: str, callbacks: Any = None, unit: str = "", description: str = ""
    ) -> Any:
        """A sum that callbacks know."""
        own = instruments.callbacks_of(name, callbacks)
        return self._create("create_observable_counter", name, unit, description, callbacks=own)

    def create_observable_up_down_counter(
        self, name: str, callbacks: Any = None, unit: str = "", description: str = ""
    ) -> Any:
        """A sum that may shrink, which callbacks know."""
        own, kind = instruments.callbacks_of(name, callbacks), "create_observable_up_down_counter"
        return self._create(kind, name, unit, description, callbacks=own)

    def create_observable_gauge(
        self, name: str, callbacks: Any = None, unit: str = "", description: str = ""
    ) -> Any:
        """A value that callbacks know."""
        own = instruments.callbacks_of(name, callbacks)
        return self._create("create_observable_gauge", name, unit, description, callbacks=own)


class GuardedMeterProvider(metrics.MeterProvider):
    """
    The process's meter provider.

    Args:
        resource: what the metrics of this process are about.
        begin: called at the first measurement of each process; it calls `open`.
        shown: redacts what readers of others see.
    """

    def __init__(
        self,
        resource: Callable[[], Resource],
        *,
        begin: Callable[[], None],
        shown: Callable[[], Records],
    ) -> None:
        self._resource = resource
        self._begin = begin
        self._shown = shown
        self.quicken: Callable[[Any, Take], Take] | None = None
        """Set by the fast path: a shorter way into an SDK instrument."""
        self.observables: list[Guarded] = []
        self._own: Backend | None = None
        self._added: dict[MetricReader, Backend] = {}
        self._meters: dict[Any, GuardedMeter] = {}
        self._instruments: dict[Any, Guarded] = {}
        self._lock = threading.RLock()
        self._generation = 0
        self.pid = process_id()

    # --- the API ---

    def get_meter(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Meter:
        """The meter of a scope; the same one each time."""
        scope = {
            "name": name if type(name) is str and name else _values.text(name or "unknown", NAME),
            "version": version,
            "schema_url": schema_url,
            "attributes": attributes,
        }
        key = (scope["name"], version, schema_url, _key_of(attributes))
        try:
            with self._lock:
                found = self._meters.get(key)
                if found is None:
                    found = self._meters[key] = GuardedMeter(self, scope)
                return found
        except TypeError:  # a version that cannot be a key
            return GuardedMeter(self, scope)

    def instrument(self, scope: dict[str, Any], kind: str, arguments: dict[str, Any]) -> Guarded:
        """The instrument of these arguments: as with the SDK, of several the first one stays."""
        told_apart = {name: value for name, value in arguments.items() if name != "callbacks"}
        key: Any = (_key_of(scope), kind, _key_of(told_apart))
        with self._lock:
            found = self._instruments.get(key)
            if found is not None:
                return found
            fresh: Guarded = instruments.KINDS[kind](self, scope, kind, arguments)
            self._instruments[key] = fresh
            if "callbacks" not in arguments:
                return fresh
            self.observables.append(fresh)
            backends = self.backends()
        for backend in backends:
            _made(backend, fresh)
        return fresh

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Have readers of others collect now; ours is flushed by `telemetry.flush`."""
        done = True
        for backend in self._added.values():
            try:
                done = backend.provider.force_flush(timeout_millis) and done
            except Exception as error:
                _diagnostics.say("metric reader", f"a reader failed: {_values.text(error)}")
                done = False
        return done

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """End readers of others; ours ends with `telemetry.shutdown`."""
        for backend in self._added.values():
            try:
                backend.provider.shutdown(timeout_millis)
            except Exception as error:
                _diagnostics.say("metric reader", f"a reader failed: {_values.text(error)}")

    # --- readers ---

    def open(self, reader: MetricReader) -> None:
        """Let this process's own reader collect, from now on."""
        self._use(Backend(reader, self._resource(), None, self.quicken), None)

    def add_metric_reader(self, metric_reader: MetricReader) -> None:
        """Let another reader collect too, from now on."""
        if metric_reader in self._added:
            _diagnostics.say("metric reader", "a metric reader was added twice; once counts")
            return
        self._use(Backend(metric_reader, self._resource(), self._shown, None), metric_reader)

    def remove_metric_reader(self, metric_reader: MetricReader) -> None:
        """Let a reader that was added collect no more, and end it."""
        with self._lock:
            backend = self._added.pop(metric_reader, None)
            self._forget()
        if backend is not None:
            backend.provider.shutdown()

    def _use(self, backend: Backend, reader: MetricReader | None) -> None:
        with self._lock:
            if reader is None:
                self._own = backend
            else:
                self._added[reader] = backend
            self._forget()
            observables = self.observables.copy()
        for observable in observables:
            _made(backend, observable)

    def _forget(self) -> None:
        self._generation += 1
        for instrument in self._instruments.values():
            instrument.forget()

    def backends(self) -> list[Backend]:
        """What measurements go to."""
        own = [] if self._own is None else [self._own]
        return [*own, *list(self._added.values())]

    def bind(self, instrument: Guarded) -> Take:
        """Find out, and remember, what takes the measurements of an instrument in this process."""
        self._begin()
        while True:
            generation = self._generation
            take = _to_all(self.backends(), instrument)
            with self._lock:
                if generation == self._generation:  # else the readers have changed meanwhile
                    instrument.take = take
                    return take

    def after_fork(self) -> None:
        """In the child: what was summed up is the parent's, and so may be every lock."""
        if self.pid == process_id():
            return
        self._lock = threading.RLock()
        self._own = None
        for backend in self._added.values():
            backend._lock = threading.RLock()  # noqa: SLF001 - of this module
            fork_locks.renew([backend.provider])
        self.pid = process_id()
        self._forget()


def _to_all(backends: list[Backend], instrument: Guarded) -> Take:
    takers = []
    for backend in backends:
        try:
            takers.append(backend.taker(instrument))
        except Exception as error:
            instruments.fault(instrument.name, error)
    if len(takers) == 1:
        return takers[0]

    def to_all(amount: Any, attributes: Any, context: Any) -> None:
        for take in takers:
            take(amount, attributes, context)

    return to_all


def _made(backend: Backend, instrument: Guarded) -> None:
    try:
        backend.make(instrument)
    except Exception as error:
        instruments.fault(instrument.name, error)


def _key_of(mapping: Any) -> Any:
    """What stands for a mapping in a key."""
    try:
        return repr(mapping) if mapping else None
    except Exception:  # an object of the application that has no text
        return id(mapping)
