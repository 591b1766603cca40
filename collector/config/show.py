"""
A loaded configuration as plain values, for `print-config`: defaults filled in, secrets masked.

What is off is left out when it would be off without its key as well, else it says
`enabled: false`; so the text says what the process would do.
"""

from typing import Any

import msgspec
from msgspec import inspect

from collector.config.help import shown
from collector.config.loading import SECTIONS
from collector.config.model import Config
from collector.config.types import bare, optional_struct


def redacted(config: Config) -> dict[str, Any]:
    """The configuration in effect, in the order of the sections."""
    whole: dict[str, Any] = {}
    for section in SECTIONS:
        found = getattr(config, section)
        if found:
            whole[section] = {id_: _struct(item.config) for id_, item in found.items()}
    whole["service"] = {
        "telemetry": _struct(config.telemetry),
        "extensions": list(config.service_extensions),
        "pipelines": {
            id_: {
                "receivers": list(pipeline.receivers),
                "processors": list(pipeline.processors),
                "exporters": list(pipeline.exporters),
            }
            for id_, pipeline in config.pipelines.items()
        },
    }
    return whole


def _struct(value: msgspec.Struct) -> dict[str, Any]:
    info = inspect.type_info(type(value))
    found: dict[str, Any] = {}
    if not isinstance(info, inspect.StructType):
        return found
    for field in info.fields:
        item = getattr(value, field.name)
        if isinstance(item, msgspec.Struct):
            found[field.encode_name] = _struct(item)
        elif item is None:
            if optional_struct(bare(field.type)) and field.default is not None:
                found[field.encode_name] = {"enabled": False}
        elif isinstance(item, list):
            found[field.encode_name] = [
                _struct(each) if isinstance(each, msgspec.Struct) else shown(each) for each in item
            ]
        else:
            found[field.encode_name] = shown(item)
    return found


def escaped(value: Any) -> Any:
    """Text that `${...}` would change when it is read again has its `$` doubled."""
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    if isinstance(value, str) and ("${" in value or "$$" in value):
        return value.replace("$", "$$")
    return value
