"""
`inference`: one call of a model as a span, histograms, an event, and its failure recorded once.

    with inference(model="wallet-risk", version="2025-10") as run:
        with run.stage("features"):
            row = features(activity)
        with run.stage("predict"):
            run.score, run.confidence = model.predict(row)

The running inference is kept in a ContextVar, so that a sync function deep below an async handler
adds to the right one (`current_inference`), and a hundred at once do not mix. Stages are spans
below the inference's; durations are recorded while the span is current, which makes it their
exemplar. What goes wrong in here is said on stderr; the model's own exception is never touched.
"""

import re
import time
from contextvars import ContextVar
from typing import Any, Final, Self

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber

from telemetry import _diagnostics, _events, _values
from telemetry import attributes as names
from telemetry._context.block import Block, Decorator
from telemetry._ml import metrics
from telemetry._traces import span

STAGE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
STAGES: Final = 16
OTHER: Final = "other"


class Inference:
    """
    One running inference; what is assigned to it is recorded when it ends.

    Args:
        model: the model's labels: name, version, role.
        confidence_max: the confidence that means "certain".
        fields: what else goes on the span and the event.
    """

    def __init__(
        self,
        model: dict[str, Any] | None = None,
        confidence_max: float = 1.0,
        fields: dict[str, object] | None = None,
    ) -> None:
        self.score: object = None
        """What the model answered; a number, or an array of one."""
        self.confidence: object = None
        """How sure the model is, on the scale that `inference(confidence_max=)` says."""
        self.batch_size: object = None
        """How many inputs the call took."""
        self.stages: dict[str, float] = {}
        """Stage -> seconds so far."""
        self.failed_stage: str | None = None
        self.model = model or {}
        self._confidence_max = confidence_max
        self._fields = fields or {}
        self._live = model is not None

    def stage(self, name: str) -> "Stage":
        """
        Time a part: `load`, `features`, `predict`, `post`, or a static word of your own.

        Works as `with` and as `async with`; a stage may run several times, its seconds add up.
        """
        text = str.__str__(name) if _values.is_a(name, str) else ""
        known = text if STAGE.fullmatch(text) else OTHER
        if known not in self.stages and len(self.stages) >= STAGES:
            known = OTHER
        return Stage(self, known)

    def attributes(self) -> dict[str, Any]:
        """What there is to record, cleaned."""
        found: dict[str, Any] = _events.attributes(self._fields) | self.model
        size = metrics.number(self.batch_size)
        if size is not None:
            found[names.RISK_INFERENCE_BATCH_SIZE] = int(size)
        score = metrics.number(self.score)
        if score is not None:
            found[names.RISK_INFERENCE_SCORE] = score
        confidence = metrics.ratio(self.confidence, self._confidence_max)
        if confidence is not None:
            found[names.RISK_CONFIDENCE] = confidence
        for name, given, read in (
            ("score", self.score, score),
            ("confidence", self.confidence, confidence),
            ("batch_size", self.batch_size, size),
        ):
            if given is not None and read is None:
                text = f"{name}={_values.clean(given)!r} is left out: not a finite number in range"
                _diagnostics.say(f"inference {name}", text)
        if self.stages:
            found[names.RISK_INFERENCE_STAGES] = dict(self.stages)
        return found

    @property
    def live(self) -> bool:
        """Whether anything is recorded."""
        return self._live


class Stage(Block["Stage"]):
    """
    A part of an inference, as a block.

    Args:
        run: the inference.
        name: of the stage.
    """

    def __init__(self, run: Inference, name: str) -> None:
        self._run = run
        self._name = name
        self._begun = 0.0
        self._labels = {**run.model, names.RISK_INFERENCE_STAGE_NAME: name}
        self._span: span.span | None = None

    def __enter__(self) -> Self:
        if self._run.live:
            model = self._run.model.get(names.RISK_MODEL_NAME, "")
            self._span = span.span(f"{self._name} {model}", **self._labels)
            self._span.__enter__()
        self._begun = time.perf_counter()
        return self

    def _end(self, error: BaseException | None) -> None:
        try:
            seconds = time.perf_counter() - self._begun
            stages = self._run.stages
            stages[self._name] = stages.get(self._name, 0.0) + seconds
            if error is not None:
                self._run.failed_stage = self._run.failed_stage or self._name
            if self._run.live:
                labels = self._labels
                if error is not None:
                    labels = {**labels, names.ERROR_TYPE: span.error_type(error)}
                metrics.stage_duration().record(seconds, labels)
        except Exception as failure:
            _diagnostics.fault("inference", failure)
        finally:
            if self._span is not None:
                self._span.__exit__(None, error, None)


class _Running:
    """An inference between enter and exit."""

    __slots__ = ("begun", "current", "outer", "owner", "run", "span")

    def __init__(self, owner: "inference", run: Inference, outer: "_Running | None") -> None:
        self.owner = owner
        self.run = run
        self.outer = outer
        self.span = span.span(f"infer {run.model[names.RISK_MODEL_NAME]}")
        self.current: trace.Span = trace.INVALID_SPAN
        self.begun = 0.0


_running: ContextVar[_Running | None] = ContextVar("otelier_inference", default=None)


def current_inference() -> Inference:
    """The running inference, for code below it; one that records nothing when there is none."""
    running = _running.get()
    return Inference() if running is None else running.run


class inference(Decorator[Inference]):  # noqa: N801 - used like a function
    """
    Record a call of a model: latency, stages, success, score, confidence, batch size.

    Works as `with`, as `async with` and as a decorator of functions and coroutine functions; the
    block gets an `Inference`, decorated code asks `current_inference()` for it.

    Example:
        with inference(model="wallet-risk", version="2025-10") as run:
            with run.stage("predict"):
                run.score = model.predict(row)

    Args:
        model: the model's name; few distinct ones.
        version: its version; few distinct ones.
        role: `champion` or `challenger`, when two run side by side.
        confidence_max: the confidence that means "certain": 100 for a model that gives percent.
        fields: of the span and the event; ids by the keywords of `log_context`.
    """

    def __init__(
        self,
        *,
        model: str,
        version: str | None = None,
        role: str | None = None,
        confidence_max: float = 1.0,
        **fields: object,
    ) -> None:
        labels = {
            names.RISK_MODEL_NAME: model,
            names.RISK_MODEL_VERSION: version,
            names.RISK_MODEL_ROLE: role,
        }
        self._model = {
            name: _values.text(value, _values.ID_TEXT)
            for name, value in labels.items()
            if value is not None
        }
        self._model.setdefault(names.RISK_MODEL_NAME, "unknown")
        self._confidence_max = metrics.number(confidence_max) or 1.0
        self._fields = fields
        self._entered: list[_Running] = []

    def __enter__(self) -> Inference:
        run = Inference(self._model, self._confidence_max, self._fields)
        try:
            running = _Running(self, run, _running.get())
            running.current = running.span.__enter__()
            self._entered.append(running)
            _running.set(running)
            running.begun = time.perf_counter()
        except Exception as error:
            _diagnostics.fault("inference", error)
        return run

    def _end(self, error: BaseException | None) -> None:
        ended = time.perf_counter()
        running = self._leave()
        if running is None:
            return
        try:
            finish(running.run, running.current, ended - running.begun, error)
        except Exception as failure:
            _events.lost("inference", failure)
        finally:
            running.span.__exit__(None, error, None)

    def _leave(self) -> _Running | None:
        """The inference that ends: ours in this context, or ours at all if entered in another."""
        try:
            running = _running.get()
            while running is not None and running.owner is not self:
                running = running.outer
            if running is not None:
                _running.set(running.outer)
                self._entered.remove(running)
                return running
            return self._entered.pop() if self._entered else None
        except Exception as error:
            _diagnostics.fault("inference", error)
            return None

    def _again(self) -> "inference":
        again = inference.__new__(inference)
        again.__dict__.update(self.__dict__, _entered=[])
        return again


def finish(
    run: Inference, current: trace.Span, seconds: float, error: BaseException | None
) -> None:
    """Histogram, exception, span attributes and event of an inference that ended."""
    labels = run.model
    found = run.attributes() | {names.RISK_INFERENCE_DURATION_S: seconds}
    if error is not None:
        kind = span.error_type(error)
        labels = {**labels, names.ERROR_TYPE: kind}
        found[names.ERROR_TYPE] = kind
        if run.failed_stage is not None:
            found[names.RISK_INFERENCE_STAGE_NAME] = run.failed_stage
    metrics.inference_duration().record(seconds, labels)
    current.set_attributes(found)
    name = run.model[names.RISK_MODEL_NAME]
    if isinstance(error, Exception):
        # the caller is expected to live without the model: WARN, not ERROR
        _events.record_once(
            names.RISK_INFERENCE_EXCEPTION,
            error,
            dict(labels),
            scope=metrics.SCOPE,
            body=f"{name} failed",
            severity=SeverityNumber.WARN,
        )
    outcome = "inferred" if error is None else f"failed: {labels[names.ERROR_TYPE]}"
    body = f"{name} {outcome} in {seconds * 1000:.2f} ms"
    _events.emit(names.RISK_INFERENCE_FINISHED, found, scope=metrics.SCOPE, body=body)
