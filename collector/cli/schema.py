"""
The JSON Schema of the YAML, for editors: completion, descriptions and underlined mistakes.

It is made from the same `Config` structs that `collector validate` decodes with, so it cannot name a key that
does not exist. Two liberties keep it free of false alarms: a value may always be a text with a `$` in it
(`${env:X}` becomes a value of the field's type later), and every section may be empty (`grpc:`). What needs
more than one place, such as whether an exporter of a pipeline is configured, stays with `validate`.
"""

from typing import Any, Final

import msgspec
from msgspec import inspect

from collector import components
from collector.config.help import field_help, shown
from collector.config.telemetry import ServiceTelemetry
from collector.config.types import bare
from collector.model import Duration

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
EXPANDED: Final[dict[str, Any]] = {"type": "string", "pattern": r"\$"}
"""A text that `${...}` stands in: what becomes of it is known when the file is read."""
DURATION: Final = r"^(0|[+-]?([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+)$"
NAME: Final = r"(/.+)?$"
SIGNALS: Final = r"^(traces|metrics|logs)" + NAME


def schema() -> dict[str, Any]:
    """The JSON Schema of a whole configuration, every registered component in it."""
    sections = {kind: _section(kind) for kind in components.KINDS}
    return {
        "$schema": DIALECT,
        "title": "otelier collector",
        "description": "Configuration of the collector, in the OpenTelemetry Collector's schema.",
        "type": "object",
        "additionalProperties": False,
        "properties": {**sections, "service": _service()},
    }


def _section(kind: str) -> dict[str, Any]:
    """A map of ids to settings; a type with a colon is an import string, whose keys are unknown."""
    patterns: dict[str, Any] = {r".*:.*": {}}
    for name in sorted(components.KINDS[kind]):
        cls = components.resolve(kind, name)
        found = _struct(cls.Config)
        text = " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())
        patterns[rf"^{name}{NAME}"] = {"description": text, **found}
    return {
        "description": f"The {kind}, by id: `type` or `type/name`.",
        "type": ["object", "null"],
        "additionalProperties": False,
        "patternProperties": patterns,
    }


def _service() -> dict[str, Any]:
    ids = {"type": ["array", "null"], "items": {"type": "string"}}
    pipeline = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "receivers": {"description": "Where the data comes from.", **ids},
            "processors": {"description": "What happens to it, in this order.", **ids},
            "exporters": {"description": "Where it goes, to all at the same time.", **ids},
        },
    }
    return {
        "description": "What is started: only what is named here.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "extensions": {"description": "The extensions that run.", **ids},
            "pipelines": {
                "description": "By signal: `traces`, `metrics`, `logs`, each with or without a name.",
                "type": ["object", "null"],
                "additionalProperties": False,
                "patternProperties": {SIGNALS: pipeline},
            },
            "telemetry": {
                "description": "What the collector says about itself.",
                **_struct(ServiceTelemetry),
            },
        },
    }


def _struct(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The object of a struct; `enabled` is a key of every section that can be off."""
    info = inspect.type_info(kind)
    if not isinstance(info, inspect.StructType):
        raise TypeError(f"{kind} is no msgspec.Struct")
    strings = field_help(kind)
    properties: dict[str, Any] = {}
    for field in info.fields:
        entry = {"description": strings[field.name], **_type(field.type)}
        if field.default not in (msgspec.NODEFAULT, msgspec.UNSET, None):
            default = shown(field.default)
            if isinstance(default, str | int | float | bool) and default != "":
                entry["default"] = default
        properties[field.encode_name] = entry
    properties.setdefault("enabled", {"description": "`false` switches the section off."})
    required = [field.encode_name for field in info.fields if field.required]
    found: dict[str, Any] = {
        "type": ["object", "null", "string"],
        "additionalProperties": False,
        "properties": properties,
    }
    return {**found, "required": required} if required else found


def _type(info: inspect.Type) -> dict[str, Any]:
    """The schema of a field's type, a text with `$` always among what it takes."""
    info = bare(info)
    match info:
        case inspect.StructType(cls=kind):
            return _struct(kind)
        case inspect.BoolType():
            return _or_expanded({"type": "boolean"})
        case inspect.IntType() | inspect.FloatType():
            return _or_expanded({"type": "number"})
        case inspect.CustomType(cls=kind) if kind is Duration:
            return {
                "anyOf": [{"type": "string", "pattern": DURATION}, {"type": "integer"}, EXPANDED]
            }
        case inspect.LiteralType(values=values):
            return _or_expanded({"enum": [*values, None]})
        case inspect.EnumType(cls=kind):
            return _or_expanded({"enum": [*(member.value for member in kind), None]})
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return {
                "anyOf": [{"type": ["array", "null"], "items": _type(item)}, {"type": "string"}]
            }
        case inspect.DictType(value_type=value):
            # Headers may be a list of {name, value} too.
            return {
                "type": ["object", "array", "null", "string"],
                "additionalProperties": _type(value),
            }
        case inspect.UnionType(types=types):
            members = [_type(each) for each in types if not isinstance(each, inspect.NoneType)]
            return members[0] if len(members) == 1 else {"anyOf": members}
        case inspect.StrType() | inspect.CustomType():
            return {"type": ["string", "null"]}
    return {}


def _or_expanded(found: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [found, {"type": "null"}, EXPANDED]}
