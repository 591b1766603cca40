"""
Instruments that cannot hurt: the API's classes around those of the SDK.

A call takes any value and any attributes: what is no finite number is not recorded and said once;
attributes are copied, so that a dict which another thread changes is none of the SDK's concern, and
values that are no label become short text. Nothing raises.

An instrument is of the program, what it measures is of the process: the SDK's instrument behind it
is made at the first measurement of each process (`meter_provider`), so a fork copies neither sums
nor locks (opentelemetry-python#3307, #3885).
"""

import itertools
import math
import numbers
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from opentelemetry import metrics
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation

from telemetry import _diagnostics, _values
from telemetry._attribute_loops import needs_no_cleaning
from telemetry._native import process_id
from telemetry._sdk.private_names import Gauge

Take = Callable[[Any, Any, Any], None]
"""Takes an amount, attributes and a context."""
LABELS: Final = 32
"""Attributes of one measurement; the first ones are kept."""
LABEL_TEXT: Final = 1024
OBSERVATIONS: Final = 10_000
"""Observations of one callback; the first ones are kept."""
_WHOLE: Final = 1 << 53
"""Larger whole numbers are recorded as floats: sums of them would leave the 64 bits of OTLP."""
_NO_LABELS: Final[dict[str, Any]] = {}


class NoMeasurementError(ValueError):
    """What was given cannot be recorded; the text says why."""


def amount_of(value: Any) -> int | float:
    """
    Any value as an amount.

    Raises:
        NoMeasurementError: it is no finite number.
    """
    kind = type(value)
    if kind is not int and kind is not float:
        if not isinstance(value, numbers.Real) and not hasattr(value, "__float__"):
            raise NoMeasurementError(f"{_values.text(value, 100)} is no number")
        value = int(value) if isinstance(value, numbers.Integral) else float(value)
    if type(value) is int and not -_WHOLE < value < _WHOLE:
        try:
            value = float(value)
        except OverflowError:
            raise NoMeasurementError("a number beyond any float") from None
    if not -math.inf < value < math.inf:
        raise NoMeasurementError(f"{value} is not finite")
    return value  # type: ignore[no-any-return]  # an int or a float, as seen above


def labels_of(attributes: Any) -> Any:
    """Any value as the attributes of a measurement: a dict of its own, with short plain values."""
    if attributes is None:
        return None
    if type(attributes) is dict:
        own = attributes.copy()
        if not own or needs_no_cleaning(own) == 2:
            return own
    elif isinstance(attributes, Mapping):
        own = dict(itertools.islice(attributes.items(), LABELS))
    else:
        _diagnostics.say(
            "labels", f"attributes of a measurement are a dict, not {_values.text(attributes, 100)}"
        )
        return None
    return {
        name if type(name) is str else _values.text(name, _values.ID_TEXT): _label(value)
        for name, value in itertools.islice(own.items(), LABELS)
    }


def _label(value: Any) -> Any:
    seen = _values.clean(value)
    if type(seen) is str:
        return seen[:LABEL_TEXT]
    if isinstance(seen, (list, tuple)) and all(isinstance(item, str) for item in seen):
        return tuple(seen)
    return seen if isinstance(seen, (int, float)) else _values.text(value, LABEL_TEXT)


def fault(name: str, error: Exception) -> None:
    """Say what became of a measurement."""
    _diagnostics.say(
        f"instrument {name}", f"a measurement of {name} was not recorded: {_values.text(error)}"
    )


class Readers(Protocol):
    """The meter provider, as an instrument sees it."""

    pid: int
    """The process that the instruments are bound in."""

    def after_fork(self) -> None:
        """Begin anew in a forked child."""

    def bind(self, instrument: "Guarded") -> Take:
        """Find out what takes the measurements of an instrument in this process."""


class Guarded:
    """
    What our instruments have in common: where their measurements go in this process.

    Args:
        provider: knows the process and its readers.
        meter: the scope, as `get_meter` was asked for it.
        kind: which `create_...` of the SDK's meter makes it.
        arguments: of that call.
    """

    def __init__(self, provider: Readers, meter: Any, kind: str, arguments: dict[str, Any]) -> None:
        self.name: str = arguments["name"]
        self.unit: str = arguments["unit"]
        self.description: str = arguments["description"]
        self.provider = provider
        self.meter = meter
        self.kind = kind
        self.arguments = arguments
        self.take: Take = self._first

    def forget(self) -> None:
        """Look for the readers again at the next measurement."""
        self.take = self._first

    def _first(self, amount: Any, attributes: Any, context: Any) -> None:
        self.provider.bind(self)(amount, attributes, context)

    def measure(self, amount: Any, attributes: Any, context: Any) -> None:
        """Record a measurement; never raises."""
        try:
            if self.provider.pid != process_id():
                self.provider.after_fork()
            self.take(amount, attributes, context)
        except Exception as error:
            fault(self.name, error)


def guarded(method: Callable[..., None]) -> Take:
    """The method of an SDK instrument, for any amount and any attributes."""

    def take(amount: Any, attributes: Any, context: Any) -> None:
        kind = type(amount)
        if (kind is not int and kind is not float) or not -_WHOLE < amount < _WHOLE:
            amount = amount_of(amount)
        method(
            amount,
            labels_of(attributes),
            context if context is None or isinstance(context, Context) else None,
        )

    return take


class Counter(Guarded, metrics.Counter):
    """A sum that grows."""

    def add(self, amount: Any, attributes: Any = None, context: Context | None = None) -> None:
        """Add an amount."""
        self.measure(amount, attributes, context)


class UpDownCounter(Guarded, metrics.UpDownCounter):
    """A sum that grows and shrinks."""

    def add(self, amount: Any, attributes: Any = None, context: Context | None = None) -> None:
        """Add an amount, or take one away."""
        self.measure(amount, attributes, context)


class Histogram(Guarded, metrics.Histogram):
    """A distribution."""

    def record(self, amount: Any, attributes: Any = None, context: Context | None = None) -> None:
        """Record a value."""
        self.measure(amount, attributes, context)


class GaugeInstrument(Guarded, Gauge):  # type: ignore[misc]  # the API's class, found at run time
    """The latest value."""

    def set(self, amount: Any, attributes: Any = None, context: Context | None = None) -> None:
        """Set the value."""
        self.measure(amount, attributes, context)


class ObservableCounter(Guarded, metrics.ObservableCounter):
    """A sum that a callback knows."""


class ObservableUpDownCounter(Guarded, metrics.ObservableUpDownCounter):
    """A sum that may shrink, which a callback knows."""


class ObservableGauge(Guarded, metrics.ObservableGauge):
    """A value that a callback knows."""


KINDS: Final[dict[str, type[Any]]] = {
    "create_counter": Counter,
    "create_up_down_counter": UpDownCounter,
    "create_histogram": Histogram,
    "create_gauge": GaugeInstrument,
    "create_observable_counter": ObservableCounter,
    "create_observable_up_down_counter": ObservableUpDownCounter,
    "create_observable_gauge": ObservableGauge,
}
METHOD: Final = {
    "create_counter": "add",
    "create_up_down_counter": "add",
    "create_histogram": "record",
    "create_gauge": "set",
}
"""How a synchronous instrument of the SDK takes a measurement."""

Callback = Callable[[CallbackOptions], Iterable[Observation]]


def callbacks_of(name: str, given: Any) -> list[Callback]:
    """Callbacks or generators of an application, as callbacks that do not raise and end."""
    if given is None:
        return []
    if not isinstance(given, Sequence):
        given = [given]
    return [_callback(name, callback) for callback in given]


def _callback(name: str, given: Any) -> Callback:
    started = False

    def observations(options: CallbackOptions) -> Any:
        nonlocal started
        if not isinstance(given, Generator):
            return given(options)
        if not started:
            started = True
            next(given)
        return given.send(options)

    def callback(options: CallbackOptions) -> list[Observation]:
        kept: list[Observation] = []
        try:
            for seen in itertools.islice(observations(options) or (), OBSERVATIONS):
                try:
                    kept.append(Observation(amount_of(seen.value), labels_of(seen.attributes)))
                except Exception as error:
                    fault(name, error)
        except StopIteration:
            pass  # a generator that has nothing more to say
        except Exception as error:
            fault(name, error)
        return kept

    return callback
