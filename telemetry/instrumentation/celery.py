"""
Celery: publish and attempt as spans, each change of state as one record, durations as metrics.

    from telemetry.instrumentation import celery
    celery.instrument(app)

Under `opentelemetry-instrument` the distro makes this call, so a worker needs no code at all.

It is built on Celery's signals, the only interface that exists in every process of a worker and in
every publisher. Where signals are silent, one public method each is wrapped: a failed publish
(`Celery.send_task`), the entry of a schedule (`Scheduler.apply_async`), a lost task that goes back
to the queue (`Request.on_failure`), a task that is skipped because a copy of it has succeeded
(`create_request_cls`), and the set-up of logging (`Logging.setup_logging_subsystem`).
The parts: `_celery_publish` and `_celery_message` (what travels), `_celery_run` (an attempt where
it runs), `_celery_parent` (what only the main process sees), `_celery_broker` (what its settings
will do), `_celery_events` and `_celery_metrics` (what is told), `_celery_logs` (handlers),
`_celery_worker` (start and end of processes).

Celery is not imported by this module: the receivers are connected when somebody imports it.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from telemetry import _settings, _setup
from telemetry.attributes import SERVICE_NAME
from telemetry.instrumentation import (
    _celery_imports,
    _celery_logs,
    _celery_options,
    _celery_parent,
    _celery_publish,
    _celery_rival,
    _celery_run,
    _celery_worker,
)

__all__ = ["instrument", "uninstrument"]

_RECEIVERS: Final[tuple[tuple[str, Callable[..., None]], ...]] = (
    ("before_task_publish", _celery_publish.before),
    ("after_task_publish", _celery_publish.after),
    ("task_prerun", _celery_run.begin),
    ("task_postrun", _celery_run.end),
    ("task_received", _celery_parent.received),
    ("task_retry", _celery_parent.retried),
    ("task_failure", _celery_parent.failed),
    ("task_revoked", _celery_parent.revoked),
    ("task_unknown", _celery_parent.unknown),
    ("task_rejected", _celery_parent.rejected),
    ("celeryd_after_setup", _celery_logs.after_set_up),
    ("worker_init", _celery_worker.worker_init),
    ("worker_ready", _celery_worker.worker_ready),
    ("worker_process_init", _celery_worker.process_init),
    ("worker_process_shutdown", _celery_worker.process_shutdown),
    ("worker_shutdown", _celery_worker.process_shutdown),
)


def instrument(
    app: Any = None,
    *,
    mode: str | Mapping[str, str] = "auto",
    kwargs_map: Mapping[str, str] | None = None,
    resources: bool = False,
) -> None:
    """
    Observe Celery in this process and its children: publishers, workers, beat.

    Sets telemetry up as `telemetry.configure()` does, unless that has happened. A later call
    changes the options. Call it where the application is made, so that each process runs it.

    Example:
        app = Celery("shop")
        celery.instrument(app, mode="link", resources=True)

    Args:
        app: the application; its name is the service's where nothing else says one.
        mode: how an attempt belongs to the trace of its publisher: "child" (one trace), "link" (a
            trace of its own that points at it), or "auto": link for eta, countdown, retries and
            members of groups, else child. Or a table from task name to mode, "*" for the others.
            A task's own option `telemetry_mode` wins.
        kwargs_map: argument of tasks -> id that it holds, by keyword (`tenant_id`) or attribute
            (`tenant.id`); used where the publisher's scope does not have the id. By default
            `tenant_id`, `user_id` and the other ids are found under their own names.
        resources: record CPU and memory of each attempt.

    Raises:
        ConfigError: a mode or an id does not exist, or a setting cannot be used.
    """
    _celery_options.use(mode=mode, kwargs_map=kwargs_map, resources=resources)
    if _setup.pipeline() is None:
        name = getattr(app, "main", None)
        settings = _settings.read()[0]
        said = settings.given("service_name") or SERVICE_NAME in (
            settings.resource_attributes or {}
        )
        usable = isinstance(name, str) and name not in ("", "__main__")
        _setup.configure(service_name=name if usable and not said else None)
    connect()


def connect() -> None:
    """Connect to Celery now, or when it is imported; not where telemetry is disabled."""
    if _setup.pipeline() is None:
        return
    _celery_imports.forget()
    for module, act in _HOOKS:
        _celery_imports.when_imported(module, act)


def instrument_from_environment() -> None:
    """What the distro calls: options from TELEMETRY_CELERY_MODE and TELEMETRY_CELERY_RESOURCES."""
    if _setup.pipeline() is not None:
        _celery_options.use_environment()
        connect()


def uninstrument() -> None:
    """Stop observing; what runs now ends unobserved."""
    _celery_imports.forget()
    for module, undo in _UNDO:
        if module in sys.modules:
            undo(sys.modules[module])
    _celery_logs.detach()


def _connect(signals: Any) -> None:
    for name, receiver in _RECEIVERS:
        getattr(signals, name).connect(receiver, weak=False, dispatch_uid=f"otelier.{name}")


def _disconnect(signals: Any) -> None:
    for name, _receiver in _RECEIVERS:
        getattr(signals, name).disconnect(dispatch_uid=f"otelier.{name}")


def _wrap_request(module: Any) -> None:
    _celery_publish.wrap(module.Request, "on_failure", _celery_parent.wrap_request)


def _wrap_strategy(module: Any) -> None:
    _celery_publish.wrap(module, "create_request_cls", _celery_parent.wrap_requests)


_HOOKS: Final[tuple[tuple[str, Callable[[Any], None]], ...]] = (
    ("celery.signals", _connect),
    ("celery.app.base", _celery_publish.wrap_app),
    ("celery.app.log", _celery_logs.wrap_set_up),
    ("celery.beat", _celery_publish.wrap_beat),
    ("celery.worker.request", _wrap_request),
    ("celery.worker.strategy", _wrap_strategy),
    (_celery_rival.MODULE, _celery_rival.stand_down),
)
_UNDO: Final[tuple[tuple[str, Callable[[Any], None]], ...]] = (
    ("celery.signals", _disconnect),
    ("celery.app.base", lambda module: _celery_publish.unwrap(module.Celery, "send_task")),
    ("celery.app.log", _celery_logs.unwrap_set_up),
    ("celery.beat", lambda module: _celery_publish.unwrap(module.Scheduler, "apply_async")),
    ("celery.worker.request", lambda module: _celery_publish.unwrap(module.Request, "on_failure")),
    ("celery.worker.strategy", lambda module: _celery_publish.unwrap(module, "create_request_cls")),
    (_celery_rival.MODULE, _celery_rival.let_go),
)
