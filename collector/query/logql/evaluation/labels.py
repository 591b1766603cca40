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
two attributes with one cleaned name the first in document order counts; one that is called like a
stream label gets `_extracted` behind its name. The names in `RESERVED`
always mean the record's own ids, so that a store can look them up; an attribute that is called the
same and is something else gets `_extracted`, too.
"""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
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
_PLACES: Final = tuple(
    (section, key, re.sub(r"[^A-Za-z0-9_]", "_", name))
    for section, key, name in (
        (None, "function_name", names.CODE_FUNCTION),
        (None, "file_path", names.CODE_FILE),
        (None, "line_number", names.CODE_LINE),
        ("exception", "type", names.EXCEPTION_TYPE),
        ("exception", "message", names.EXCEPTION_MESSAGE),
        ("exception", "stacktrace", names.EXCEPTION_STACKTRACE),
        ("trace", "execution_time_ms", names.EXECUTION_TIME_MS),
        ("trace", "status", names.EXECUTION_STATUS),
    )
)
RESERVED: Final = frozenset({"trace_id", "span_id", *names.CONTEXT.values()})
_NOTHING: Final[Document] = {}
_MOST_RESOURCES: Final = 4096
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


@dataclass(slots=True, frozen=True)
class _Resource:
    """What a resource gives every record of it: labels of the stream, and metadata."""

    stream: dict[str, str]
    metadata: dict[str, str]


class _Resources(dict[tuple[Any, ...], _Resource]):
    """Resources that were seen, by service and attributes: thousands of records share one."""

    def of(self, document: Document) -> _Resource:
        """The labels that come from the resource of a record; shared, never to be changed."""
        service = str(document.get("service") or "unknown_service")
        attributes = document.get("resource") or _NOTHING
        if not all(type(value) in (str, int) for value in attributes.values()):
            return _resource(service, attributes)  # 1, 1.0 and True are one key, and other texts
        key = (service, *attributes.items())
        found = self.get(key)
        if found is None:
            if len(self) >= _MOST_RESOURCES:
                self.clear()
            found = self[key] = _resource(service, attributes)
        return found


def _resource(service: str, attributes: Document) -> _Resource:
    stream = {"service_name": service}
    for name, label in STREAM_LABELS.items():
        value = attributes.get(name)
        if value is not None:
            stream[label] = text_of(value)
    rest: dict[str, str] = {}
    for name, value in attributes.items():
        if name not in STREAM_LABELS and name != "service.name":
            for path, leaf in _leaves(name, value):
                rest.setdefault(cleaned(path), text_of(leaf))
    return _Resource(stream, rest)


_resources: Final = _Resources()


def stream_labels(document: Document) -> dict[str, str]:
    """What `{...}` selects by; shared between records, never to be changed."""
    return _resources.of(document).stream


def metadata(document: Document) -> dict[str, str]:
    """The structured metadata of a record, `detected_level` included."""
    found: dict[str, str] = {}
    shared = _resources.of(document)
    attributes = document.get("attributes") or _NOTHING
    trace = document.get("trace") or _NOTHING
    context = document.get("context") or _NOTHING
    own = {**context, **{key: trace[key] for key in ("trace_id", "span_id") if key in trace}}
    for key in ("trace_id", "span_id"):
        if key in own:
            found[key] = own[key]
    _add_context(found, context, attributes)
    for section, key, label in _PLACES:
        value = (document if section is None else document.get(section) or _NOTHING).get(key)
        if value is not None:
            found[label] = text_of(value)
    for name, value in attributes.items():
        _add(found, name, value, own, shared.stream)
    for label, text in shared.metadata.items():
        if label in RESERVED:
            _add(found, label, text, own, shared.stream)
        else:
            found.setdefault(label, text)
    scope = document.get("scope") or _NOTHING
    for key in ("name", "version"):
        if scope.get(key):
            found.setdefault(f"scope_{key}", scope[key])
    for name, value in (scope.get("attributes") or _NOTHING).items():
        _add(found, name, value, own, shared.stream)
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


def _add(
    found: dict[str, str],
    name: str,
    value: Any,
    own: dict[str, str],
    stream: dict[str, str],
) -> None:
    """One attribute; a map becomes a label for each of its leaves."""
    for path, leaf in _leaves(name, value):
        label = cleaned(path)
        if label in stream or (label in RESERVED and own.get(label) != text_of(leaf)):
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
