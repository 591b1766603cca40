"""
A request that was sent to the path of another signal, or that says nothing we know.

OTLP tells receivers to ignore what they do not know, so such a body is an empty request, and an
empty request is a success: the sender believes that its data is stored. So a body from which
nothing can be read is refused, and the answer names what was found in it.

In JSON the names tell. In protobuf only numbers do, and metrics read as log records are records with
nonsense in them; but there a field has a type that the schema does not give it, which no sender of
the right signal writes.
"""

from typing import Any, Final

from google.protobuf.unknown_fields import UnknownFieldSet

from collector.errors import Malformed, printable

PATHS: Final = {
    "resourceSpans": ("traces", "/v1/traces"),
    "resourceMetrics": ("metrics", "/v1/metrics"),
    "resourceLogs": ("logs", "/v1/logs"),
}
OLD: Final = {
    "instrumentationLibrarySpans": "scopeSpans",
    "instrumentationLibraryMetrics": "scopeMetrics",
    "instrumentationLibraryLogs": "scopeLogs",
    "logs": "logRecords",
}
"""Names of OTLP before 1.0, and what they are called since."""
NAMED: Final = 5
LONGEST: Final = 60


def check_names(signal: str, unknown: list[str]) -> None:
    """
    Refuse a JSON body in which no list of items was found, though it has members.

    Args:
        signal: the top member of the request that was expected, such as `resourceLogs`.
        unknown: the names in it that are not known.

    Raises:
        Malformed: there are such names.
    """
    if not unknown:
        return
    shown = ", ".join(printable(name[:LONGEST]) for name in unknown[:NAMED])
    wanted, _ = PATHS[signal]
    text = f"nothing in the body is known as {wanted}, found: {shown}"
    for name in unknown:
        camel = "".join(
            part if number == 0 else part.capitalize()
            for number, part in enumerate(name.split("_"))
        )
        if camel in PATHS and camel != signal:
            kind, path = PATHS[camel]
            raise Malformed(f"{text}; this is a request of {kind}, send it to {path}")
        if name in OLD:
            raise Malformed(f"{text}; {name} was renamed {OLD[name]} in OTLP 1.0")
        if camel != name:
            raise Malformed(f"{text}; OTLP/JSON is lowerCamelCase, so it is {camel}")
    raise Malformed(f"{text}; a request of {wanted} begins with {signal}")


def check_types(noun: str, item: Any) -> None:
    """
    Refuse a protobuf body whose first item has fields of types that the signal does not have.

    Args:
        noun: how the items of the signal are called.
        item: the first span, metric or log record.

    Raises:
        Malformed: it has.
    """
    known = item.DESCRIPTOR.fields_by_number
    for unknown in UnknownFieldSet(item):  # type: ignore[attr-defined]  # the stubs lack it
        if unknown.field_number in known:
            raise Malformed(
                f"these are no {noun}: field {unknown.field_number} has another type; "
                "the body may belong to another path (/v1/traces, /v1/metrics, /v1/logs)"
            )
