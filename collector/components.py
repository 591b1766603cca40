"""
The registry: YAML type -> import string, in dicts that a reader can see.

Nothing is imported until a configuration names it. A type that contains a colon is itself an
import string (`exporters: {"mycompany.sinks:Kafka": {...}}`), so a third party needs no
registration. The class carries its `Config`.
"""

import importlib
from typing import Any, Final

RECEIVERS: Final = {
    "otlp": "collector.receivers.otlp.receiver:Otlp",
    "spool": "collector.receivers.spool.receiver:Spool",
}
PROCESSORS: Final = {
    "attributes": "collector.processors.attributes:Attributes",
    "batch": "collector.processors.batch:BatchProcessor",
    "filter": "collector.processors.filter:Filter",
    "memory_limiter": "collector.processors.memory_limiter:MemoryLimiter",
    "probabilistic_sampler": "collector.processors.probabilistic_sampler:ProbabilisticSampler",
    "python": "collector.processors.python:Python",
    "redaction": "collector.processors.redaction:Redaction",
    "resource": "collector.processors.resource:Resource",
}
EXPORTERS: Final = {
    "debug": "collector.exporters.debug:Debug",
    "file": "collector.exporters.file.exporter:File",
    "mongodb": "collector.stores.mongodb.store:MongoDB",
    "otlp": "collector.exporters.otlp.grpc:Otlp",
    "otlp_grpc": "collector.exporters.otlp.grpc:Otlp",
    "otlp_http": "collector.exporters.otlp.http:OtlpHttp",
    "otlphttp": "collector.exporters.otlp.http:OtlpHttp",
    "prometheus": "collector.exporters.prometheus.exporter:Prometheus",
    "sqlite": "collector.stores.sqlite.store:SQLite",
}
CONNECTORS: Final = {
    "count": "collector.connectors.count:Count",
    "service_graph": "collector.connectors.servicegraph:ServiceGraph",
    "servicegraph": "collector.connectors.servicegraph:ServiceGraph",
    "span_metrics": "collector.connectors.spanmetrics:SpanMetrics",
    "spanmetrics": "collector.connectors.spanmetrics:SpanMetrics",
}
EXTENSIONS: Final = {
    "bearer_token_auth": "collector.extensions.bearertokenauth:BearerTokenAuth",
    "bearertokenauth": "collector.extensions.bearertokenauth:BearerTokenAuth",
    "file_storage": "collector.wal.storage:FileStorage",
    "health_check": "collector.extensions.health_check:HealthCheck",
    "query": "collector.query.app:QueryServer",
}

KINDS: Final[dict[str, dict[str, str]]] = {
    "receivers": RECEIVERS,
    "processors": PROCESSORS,
    "exporters": EXPORTERS,
    "connectors": CONNECTORS,
    "extensions": EXTENSIONS,
}


def resolve(kind: str, name: str) -> Any:
    """
    The class behind a YAML type.

    Args:
        kind: a section of the YAML, such as "exporters".
        name: the type (before the slash of an id), or an import string with a colon.

    Raises:
        KeyError: the type is not registered.
        ImportError, AttributeError: the import string leads nowhere.
    """
    target = name if ":" in name else KINDS[kind][name]
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
