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
The parts, in `_celery`: `publish` and `message` (what travels), `attempt` (where it runs),
`main_process` (what only that sees), `state` (what both know), `broker` (what its settings will do),
`events` and `metrics` (what is recorded), `logs` (handlers), `lifecycle` (start and end of processes).

Celery is not imported by this module: the receivers are connected when it is imported.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from telemetry._config import configure
from telemetry._config import settings as _settings
from telemetry.attributes import SERVICE_NAME
from telemetry.instrumentation._celery import (
    attempt,
    chatter,
    contrib,
    import_hooks,
    lifecycle,
    logs,
    main_process,
    options,
    publish,
)

__all__ = ["instrument", "uninstrument"]


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
    options.use(mode=mode, kwargs_map=kwargs_map, resources=resources)
    if configure.pipeline() is None:
        name = getattr(app, "main", None)
        settings = _settings.read()[0]
        said = settings.given("service_name") or SERVICE_NAME in (
            settings.resource_attributes or {}
        )
        usable = isinstance(name, str) and name not in ("", "__main__")
        configure.configure(service_name=name if usable and not said else None)
    connect()


def connect() -> None:
    """Connect to Celery now, or when it is imported; not where telemetry is disabled."""
    if configure.pipeline() is None:
        return
    import_hooks.forget()
    for module, act in _HOOKS:
        import_hooks.when_imported(module, act)


def instrument_from_environment() -> None:
    """What the distro calls: options from TELEMETRY_CELERY_MODE and TELEMETRY_CELERY_RESOURCES."""
    if configure.pipeline() is not None:
        options.use_environment()
        connect()


def uninstrument() -> None:
    """Stop observing; what runs now ends unobserved."""
    import_hooks.forget()
    for module, undo in _UNDO:
        if module in sys.modules:
            undo(sys.modules[module])
    logs.detach()


_RECEIVERS: Final[tuple[tuple[str, Callable[..., None]], ...]] = (
    ("before_task_publish", publish.before),
    ("after_task_publish", publish.after),
    ("task_prerun", attempt.begin),
    ("task_postrun", attempt.end),
    ("task_received", main_process.received),
    ("task_retry", main_process.retried),
    ("task_failure", main_process.failed),
    ("task_revoked", main_process.revoked),
    ("task_unknown", main_process.unknown),
    ("task_rejected", main_process.rejected),
    ("celeryd_after_setup", logs.after_set_up),
    ("worker_init", lifecycle.worker_init(uninstrument)),
    ("worker_ready", lifecycle.worker_ready),
    ("beat_init", lifecycle.beat_init),
    ("worker_process_init", lifecycle.process_init),
    ("worker_process_shutdown", lifecycle.process_shutdown),
    ("worker_shutdown", lifecycle.process_shutdown),
)


def _connect(signals: Any) -> None:
    for name, receiver in _RECEIVERS:
        getattr(signals, name).connect(receiver, weak=False, dispatch_uid=f"otelier.{name}")


def _disconnect(signals: Any) -> None:
    for name, _receiver in _RECEIVERS:
        getattr(signals, name).disconnect(dispatch_uid=f"otelier.{name}")


def _wrap_request(module: Any) -> None:
    publish.wrap(module.Request, "on_failure", main_process.wrap_request)


def _wrap_backends(module: Any) -> None:
    for name in chatter.STORING:
        publish.wrap(module.Backend, name, chatter.quiet)


def _unwrap_backends(module: Any) -> None:
    for name in chatter.STORING:
        publish.unwrap(module.Backend, name)


def _wrap_strategy(module: Any) -> None:
    publish.wrap(module, "create_request_cls", main_process.wrap_requests)


_HOOKS: Final[tuple[tuple[str, Callable[[Any], None]], ...]] = (
    ("celery.signals", _connect),
    ("celery.app.base", publish.wrap_app),
    ("celery.app.log", logs.wrap_set_up),
    ("celery.backends.base", _wrap_backends),
    ("celery.beat", publish.wrap_beat),
    ("celery.worker.request", _wrap_request),
    ("celery.worker.strategy", _wrap_strategy),
    (contrib.MODULE, contrib.stand_down),
)
_UNDO: Final[tuple[tuple[str, Callable[[Any], None]], ...]] = (
    ("celery.signals", _disconnect),
    ("celery.app.base", lambda module: publish.unwrap(module.Celery, "send_task")),
    ("celery.app.log", logs.unwrap_set_up),
    ("celery.backends.base", _unwrap_backends),
    ("celery.beat", lambda module: publish.unwrap(module.Scheduler, "apply_async")),
    ("celery.worker.request", lambda module: publish.unwrap(module.Request, "on_failure")),
    ("celery.worker.strategy", lambda module: publish.unwrap(module, "create_request_cls")),
    (contrib.MODULE, contrib.let_go),
)
