"""
YAML -> typed configuration: the OpenTelemetry Collector's schema, read as strictly as it does.

The way of a value: `dialect` reads YAML into nodes that know their line, `sources` retrieves and
merges them, `expansion` replaces `${...}`, `decode` turns nodes into the components' structs,
`checks` looks at what only the whole can show, `loading` calls them in this order. Everything that
is wrong is collected in `problems` and reported at once; nothing here opens a port.
"""

from collector.config.dialect import dump_yaml
from collector.config.help import describe, field_help
from collector.config.loading import load, read_source
from collector.config.model import ComponentConfig, Config, PipelineConfig
from collector.config.problems import InvalidConfig
from collector.config.show import redacted
from collector.config.telemetry import PrometheusReader, Reader, ServiceTelemetry

__all__ = [
    "ComponentConfig",
    "Config",
    "InvalidConfig",
    "PipelineConfig",
    "PrometheusReader",
    "Reader",
    "ServiceTelemetry",
    "describe",
    "dump_yaml",
    "field_help",
    "load",
    "read_source",
    "redacted",
]
