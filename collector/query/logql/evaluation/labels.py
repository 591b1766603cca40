"""
A log document as Loki's three kinds of labels, and its level.

- **Stream labels** select: `service_name` and the few resource attributes that say where a record
  comes from (those that Loki itself indexes when it is given OTLP).
- **Structured metadata** is all the rest: record, scope and resource attributes under cleaned names
  and the record's own fields. What a document keeps in places of its own (`context`, `exception`,
  `function_name`) stands under the name of the attribute that it came from.
- **Aliases** are our words for the same (`task_id` for `celery.task.id`, `event_name`): a query may
  use them, an answer does not repeat them.

Names are cleaned as Loki does: what is not a letter, digit or underscore becomes an underscore. Of
two attributes with one cleaned name the first in document order counts. The names in `RESERVED`
always mean the record's own ids, so that a store can look them up; an attribute that is called the
same and is something else gets `_extracted` behind its name.
"""

import base64
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from collector.query.logql import units
from collector.stores.base import Document, dumps
from telemetry import attributes as names

UNKNOWN_LEVEL: Final = "unknown"
EXTRACTED: Final = "_extracted"

_INDEXED: Final = (
    "service.namespace",
    "service.instance.id",
    "deployment.environment",
    "deployment.environment.name",
    "cloud.region",
    "cloud.availability_zone",
    "container.name",
    *(
        f"k8s.{kind}.name"
        for kind in (
            "cluster",
            "namespace",
            "pod",
            "container",
            "replicaset",
            "deployment",
            "statefulset",
            "daemonset",
            "cronjob",
            "job",
        )
    ),
)
STREAM_LABELS: Final = {name: re.sub(r"[^A-Za-z0-9_]", "_", name) for name in _INDEXED}
"""Resource attribute -> stream label, besides `service_name`."""

_CONTEXT: Final = {key: name for name, key in names.CONTEXT.items()}
_PLACES: Final = (
    (None, "function_name", names.CODE_FUNCTION),
    (None, "file_path", names.CODE_FILE),
    (None, "line_number", names.CODE_LINE),
    ("exception", "type", names.EXCEPTION_TYPE),
    ("exception", "message", names.EXCEPTION_MESSAGE),
    ("exception", "stacktrace", names.EXCEPTION_STACKTRACE),
    ("trace", "execution_time_ms", names.EXECUTION_TIME_MS),
    ("trace", "status", names.EXECUTION_STATUS),
)
RESERVED: Final = frozenset({"trace_id", "span_id", *names.CONTEXT.values()})
_NOTHING: Final[Document] = {}
_UNCLEAN: Final = re.compile(r"[^A-Za-z0-9_]")


@lru_cache(maxsize=16_384)
def cleaned(name: str) -> str:
    """An attribute's name as a label name."""
    label = _UNCLEAN.sub("_", name) or "_"
    return f"key_{label}" if label[0].isdigit() else label


def text_of(value: Any) -> str:
    """An attribute's value as a label's; lists and maps are JSON, bytes base64."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return units.print_number(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return dumps(value).decode()


def stream_labels(document: Document) -> dict[str, str]:
    """What `{...}` selects by."""
    found = {"service_name": str(document.get("service") or "unknown_service")}
    resource = document.get("resource")
    if resource:
        for name, label in STREAM_LABELS.items():
            value = resource.get(name)
            if value is not None:
                found[label] = text_of(value)
    return found


def metadata(document: Document) -> dict[str, str]:
    """The structured metadata of a record, `detected_level` included."""
    found: dict[str, str] = {}
    attributes = document.get("attributes") or _NOTHING
    trace = document.get("trace") or _NOTHING
    context = document.get("context") or _NOTHING
    own = {**context, **{key: trace[key] for key in ("trace_id", "span_id") if key in trace}}
    for key in ("trace_id", "span_id"):
        if key in own:
            found[key] = own[key]
    _add_context(found, context, attributes)
    for section, key, name in _PLACES:
        value = (document if section is None else document.get(section) or _NOTHING).get(key)
        if value is not None:
            found[cleaned(name)] = text_of(value)
    for name, value in attributes.items():
        _add(found, name, value, own)
    for name, value in (document.get("resource") or _NOTHING).items():
        if name not in STREAM_LABELS and name != "service.name":
            _add(found, name, value, own)
    scope = document.get("scope") or _NOTHING
    for key in ("name", "version"):
        if scope.get(key):
            found.setdefault(f"scope_{key}", scope[key])
    for name, value in (scope.get("attributes") or _NOTHING).items():
        _add(found, name, value, own)
    if document.get("observed_unix_nano"):
        found.setdefault("observed_timestamp", str(document["observed_unix_nano"]))
    for key in ("severity_number", "severity_text", "flags", "dropped_attributes_count"):
        if document.get(key):
            found.setdefault(key, str(document[key]))
    found["detected_level"] = detected_level(document, found)
    return found


def aliases(document: Document) -> dict[str, str]:
    """Names that a query may use besides those of the metadata."""
    found = dict(document.get("context") or _NOTHING)
    if document.get("event"):
        found["event_name"] = document["event"]
    return found


def _add_context(found: dict[str, str], context: Document, attributes: Document) -> None:
    """The ids of the scope, those that are not among the attributes any more under their names."""
    for key, value in context.items():
        name = _CONTEXT.get(key, key)
        if key in RESERVED and cleaned(name) == key:
            found[key] = value  # the one place of this id, whatever spelling it came in
        elif name not in attributes and key not in attributes:
            found[cleaned(name)] = value


def _add(found: dict[str, str], name: str, value: Any, own: dict[str, str]) -> None:
    """One attribute; a map becomes a label for each of its leaves."""
    for path, leaf in _leaves(name, value):
        label = cleaned(path)
        if label in RESERVED and own.get(label) != text_of(leaf):
            label += EXTRACTED
        found.setdefault(label, text_of(leaf))


def _leaves(name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and depth < 32:
        for key, inner in value.items():
            yield from _leaves(f"{name}_{key}", inner, depth + 1)
    elif value is not None:
        yield name, value


_LEVEL_NAMES: Final = ("level", "log_level", "severity", "severity_text", "lvl", "SeverityText")
_LEVEL_LABELS: Final = tuple(
    dict.fromkeys(
        form for name in _LEVEL_NAMES for form in (name, name.upper(), name[0].upper() + name[1:])
    )
)
_WORDS: Final = {
    "trace": "trace",
    "trc": "trace",
    "debug": "debug",
    "dbg": "debug",
    "info": "info",
    "inf": "info",
    "information": "info",
    "notice": "info",
    "warn": "warn",
    "wrn": "warn",
    "warning": "warn",
    "error": "error",
    "err": "error",
    "critical": "critical",
    "crit": "critical",
    "fatal": "fatal",
}
_NUMBERS: Final = ("trace", "debug", "info", "warn", "error", "fatal")
_IN_LINE: Final = re.compile(
    r"""\b(?:level|lvl|severity)["']?\s*[=:]\s*["']?([A-Za-z]{3,11})\b""", re.IGNORECASE
)
_WORD_IN_LINE: Final = re.compile(
    r"\b(trace|debug|info|warn|warning|error|err|critical|fatal)\b", re.IGNORECASE
)
_LOOKED_AT: Final = 2048
"""Characters of a line in which a level is looked for."""


def detected_level(document: Document, labels: dict[str, str]) -> str:
    """
    Loki's word for the level of a record: a label that names it, else the number, else the line.

    Args:
        document: the record.
        labels: its structured metadata so far.
    """
    for name in _LEVEL_LABELS:
        word = _WORDS.get(labels.get(name, "").lower())
        if word:
            return word
    number = document.get("severity_number") or 0
    if number > 0:
        return _NUMBERS[min((number - 1) // 4, 5)]
    line = document.get("message", "")[:_LOOKED_AT]
    found = _IN_LINE.search(line)
    word = _WORDS.get(found[1].lower()) if found else None
    if word is None:
        found = _WORD_IN_LINE.search(line)
        word = _WORDS[found[1].lower()] if found else None
    return word or UNKNOWN_LEVEL
