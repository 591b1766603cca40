"""
What a loaded configuration is: components by id, pipelines by id, all decoded and checked.

Plain data. The service builds the process from it and needs no YAML, no lines and no lookups: classes and
configs stand side by side, and every id in a pipeline is known to exist.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from collector.config.telemetry import ServiceTelemetry
from collector.model import Signal


@dataclass(slots=True, frozen=True)
class ComponentConfig:
    """
    One component that is configured, whether or not a pipeline uses it.

    Args:
        id: `type` or `type/name`, in its one spelling.
        type: the part before the slash: a registered type or an import string.
        cls: the class behind the type.
        config: an instance of `cls.Config`.
    """

    id: str
    type: str
    cls: Any
    config: msgspec.Struct


@dataclass(slots=True, frozen=True)
class PipelineConfig:
    """
    One pipeline; every id in it is a key of the section of its kind, or of `connectors`.

    Args:
        id: `signal` or `signal/name`.
        signal: what flows through it.
        receivers: ids in the order written, each once.
        processors: ids in the order in which they run.
        exporters: ids in the order written, each once.
    """

    id: str
    signal: Signal
    receivers: tuple[str, ...]
    processors: tuple[str, ...]
    exporters: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Config:
    """
    A whole configuration.

    Args:
        receivers, processors, exporters, connectors, extensions: by id, in the order written.
        pipelines: by id, in the order written.
        service_extensions: the extensions to start, in the order written.
        telemetry: what the collector reports about itself.
        warnings: what the operator should know although it is no error, already with its place.
        source: the merged and expanded mapping, before decoding; secrets are readable in it.
    """

    receivers: dict[str, ComponentConfig] = field(default_factory=dict)
    processors: dict[str, ComponentConfig] = field(default_factory=dict)
    exporters: dict[str, ComponentConfig] = field(default_factory=dict)
    connectors: dict[str, ComponentConfig] = field(default_factory=dict)
    extensions: dict[str, ComponentConfig] = field(default_factory=dict)
    pipelines: dict[str, PipelineConfig] = field(default_factory=dict)
    service_extensions: tuple[str, ...] = ()
    telemetry: ServiceTelemetry = field(default_factory=ServiceTelemetry)
    warnings: list[str] = field(default_factory=list)
    source: dict[str, Any] = field(default_factory=dict, repr=False)
