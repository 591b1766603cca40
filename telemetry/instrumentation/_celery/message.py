"""
What travels with a task, and how it is read on the other side.

Headers of ours on each message: the W3C ones of the global propagator; `x-telemetry-ids`, the ids
of an allow-list as JSON text, which links and brokers cannot lose; `x-enqueued-at`, the time of
this publish. Celery carries unknown headers over to retries, so each publish overwrites all of
them: a header of the attempt before would give wrong waits, and a growing one would add up.

Celery merges headers into the request, so `read` takes that mapping: the attributes of a task's
request in the process that runs it, or the dict of the worker's own request in its parent.
"""

import datetime as dt
import functools
import inspect
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from opentelemetry import propagate, trace
from opentelemetry.context import Context

from telemetry import _values
from telemetry import attributes as attr
from telemetry._context import scope
from telemetry.instrumentation._celery import options

IDS: Final = "x-telemetry-ids"
ENQUEUED_AT: Final = "x-enqueued-at"
BEAT_ENTRY: Final = "x-beat-entry"
BEAT: Final = "celery_beat_task"
DJANGO_ENTRY: Final = "periodic_task_name"
LONGEST: Final = 8192

_SYSTEMS: Final = {
    **dict.fromkeys(("amqp", "amqps", "pyamqp", "librabbitmq"), "rabbitmq"),
    **dict.fromkeys(("redis", "rediss", "sentinel"), "redis"),
    "sqs": "aws_sqs",
    "azureservicebus": "servicebus",
    "gcpubsub": "gcp_pubsub",
    "confluentkafka": "kafka",
}
_systems: "WeakKeyDictionary[Any, str]" = WeakKeyDictionary()
_parameters: "WeakKeyDictionary[Any, tuple[str, ...]]" = WeakKeyDictionary()

pool = ""
"""The pool of this worker; empty outside of one."""


@dataclass(slots=True)
class Message:
    """A task's message, as far as it concerns us."""

    id: str
    name: str
    queue: str
    retries: int
    ids: dict[str, str]
    """The ids that travelled, by keyword."""
    context: Context
    """Trace and baggage that travelled, in an otherwise empty context."""
    enqueued_at: float | None
    eta: float | None
    redelivered: bool
    attributes: dict[str, Any]
    """What spans and events say about the task."""

    def waited(self, now: float) -> float | None:
        """Seconds in the queue until `now`, without the time that the task was asked to wait."""
        if self.enqueued_at is None:
            return None
        return max(now - max(self.enqueued_at, self.eta or 0.0), 0.0)


@functools.cache
def tracer() -> trace.Tracer:
    """Whose spans publishes and attempts are."""
    return trace.get_tracer("telemetry")


def write(
    headers: dict[str, Any], ids: Mapping[str, str], context: Context, beat: str | None
) -> None:
    """Put our headers on a message, over those of an attempt before."""
    propagator = propagate.get_global_textmap()
    for name in (*propagator.fields, IDS, BEAT_ENTRY):
        headers.pop(name, None)
    propagator.inject(headers, context)
    headers[IDS] = json.dumps(ids, separators=(",", ":"))
    headers[ENQUEUED_AT] = f"{time.time():.6f}"
    if beat is not None:
        headers[BEAT_ENTRY] = beat


def read(headers: Mapping[str, Any], app: Any) -> Message:
    """
    A message from the headers that Celery has merged into its request.

    Args:
        headers: the request's mapping.
        app: the Celery application, which knows the broker.
    """
    nested = headers.get("headers")
    more: Mapping[str, Any] = nested if isinstance(nested, Mapping) else {}

    def get(key: str) -> Any:
        value = headers.get(key)
        return more.get(key) if value is None else value

    delivery = headers.get("delivery_info")
    delivery = delivery if isinstance(delivery, Mapping) else {}
    task_id = _values.text(headers.get("id"), _values.ID_TEXT)
    queue = _values.text(
        delivery.get("routing_key") or delivery.get("exchange") or "", _values.ID_TEXT
    )
    retries = headers.get("retries")
    retries = retries if isinstance(retries, int) else 0
    name = _values.text(headers.get("task") or "", _values.ID_TEXT)
    redelivered = bool(delivery.get("redelivered"))
    attributes: dict[str, Any] = {
        attr.MESSAGING_SYSTEM: system(app),
        attr.MESSAGING_DESTINATION: queue,
        attr.MESSAGING_MESSAGE_ID: task_id,
        attr.TASK_ID: task_id,
        attr.CELERY_TASK_NAME: name,
        attr.CELERY_TASK_RETRIES: retries,
    }
    for key, attribute in (
        ("root_id", attr.CELERY_TASK_ROOT_ID),
        ("parent_id", attr.CELERY_TASK_PARENT_ID),
        ("group", attr.CELERY_TASK_GROUP_ID),
        ("eta", attr.CELERY_TASK_ETA),
        ("hostname", attr.CELERY_WORKER_HOSTNAME),
    ):
        if headers.get(key):
            attributes[attribute] = _values.text(headers[key], _values.ID_TEXT)
    if redelivered:
        attributes[attr.CELERY_TASK_REDELIVERED] = True
    entry = get(BEAT_ENTRY) or get(DJANGO_ENTRY) or ("unnamed" if get(BEAT) else None)
    if entry:
        attributes[attr.CELERY_BEAT_ENTRY] = _values.text(entry, _values.ID_TEXT)
    if pool:
        attributes[attr.CELERY_WORKER_POOL] = pool
    carrier = {
        field: value
        for field in propagate.get_global_textmap().fields
        if isinstance(value := get(field), str) and len(value) <= LONGEST
    }
    context = propagate.extract(carrier, Context())
    return Message(
        id=task_id,
        name=name,
        queue=queue,
        retries=retries,
        ids=_ids(get(IDS)),
        context=context,
        enqueued_at=_number(get(ENQUEUED_AT)),
        eta=moment(headers.get("eta")),
        redelivered=redelivered,
        attributes=attributes,
    )


def complete(
    ids: dict[str, str],
    *,
    task: Any,
    args: Any,
    kwargs: Any,
    fallback: object,
    skip: Iterable[str] = (),
) -> dict[str, str]:
    """
    The ids with what the task's arguments say about those that are not known yet.

    Args:
        ids: what is known, by keyword; wins.
        task: the task, if it is known here: then positional arguments have names too.
        args: its positional arguments.
        kwargs: its keyword arguments.
        fallback: the correlation id when none is set.
        skip: keywords that are known in another way.
    """
    found = dict(ids)
    names = _parameter_names(task) if task is not None and args else ()
    for argument, keyword in options.current().kwargs_map.items():
        if keyword in found or keyword in skip:
            continue
        value = kwargs.get(argument) if isinstance(kwargs, Mapping) else None
        if value is None and argument in names and isinstance(args, (list, tuple)):
            position = names.index(argument)
            value = args[position] if position < len(args) else None
        if isinstance(value, (list, dict, set)) or value is None or value == "":
            continue
        found[keyword] = _values.text(value, _values.ID_TEXT)
    if "correlation_id" not in found and "correlation_id" not in skip and fallback:
        found["correlation_id"] = _values.text(fallback, _values.ID_TEXT)
    return found


def ids_here() -> dict[str, str]:
    """The ids of the running scope that may travel, by keyword."""
    return {
        keyword: _values.text(value, _values.ID_TEXT)
        for keyword, value in scope.current_context().items()
        if keyword in options.TRAVELLING
    }


def system(app: Any) -> str:
    """The broker of an application, as the conventions name it."""
    try:
        known = _systems.get(app)
        if known is None:
            url = app.conf.broker_write_url or app.conf.broker_url or "amqp"
            url = url[0] if isinstance(url, (list, tuple)) else url
            scheme = str(url).partition(":")[0].partition("+")[0]
            known = _systems[app] = _SYSTEMS.get(scheme.lower(), scheme.lower())
    except Exception:
        return "_OTHER"
    return known


def _ids(text: Any) -> dict[str, str]:
    if not isinstance(text, str) or len(text) > LONGEST:
        return {}
    try:
        given = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(given, dict):
        return {}
    return {
        keyword: _values.text(value, _values.ID_TEXT)
        for keyword, value in given.items()
        if keyword in options.TRAVELLING and isinstance(value, str) and value
    }


def _number(text: Any) -> float | None:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def moment(value: Any) -> float | None:
    """Seconds of the epoch of an ISO text or a datetime; without a zone it is UTC."""
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, dt.datetime):
        return None
    return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).timestamp()


def _parameter_names(task: Any) -> tuple[str, ...]:
    """The names of a task's positional parameters, without `self` of a bound task."""
    known = _parameters.get(task)
    if known is None:
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        try:
            parameters = inspect.signature(task.run).parameters.values()
            known = tuple(parameter.name for parameter in parameters if parameter.kind in kinds)
        except (TypeError, ValueError):
            known = ()
        _parameters[task] = known
    return known


def retry_delay(when: Any) -> float | None:
    """Seconds until the next attempt, from what `Retry` says: seconds or a moment."""
    if isinstance(when, (int, float)):
        return max(float(when), 0.0)
    then = moment(when)
    return None if then is None else round(max(then - time.time(), 0.0), 3)
