"""
Every private name of the OpenTelemetry SDK that the ordinary path looks at; it needs none of them.

Each is looked up by `getattr` and has an answer for a release without it. What the fast path leans
on is in `_fast` and listed in its README; how records are read is in `_otel_context`.
"""

from typing import Any, Final

from opentelemetry import metrics

Gauge: Final[Any] = getattr(metrics, "Gauge", None) or getattr(metrics, "_Gauge", object)
"""The API's synchronous gauge: exported with an underscore up to now."""


def has_exporters(provider: object) -> bool:
    """
    Whether a provider that another package has made has processors or readers already.

    Only for a hint: their records are not redacted by us. Unknown is no.
    """
    for name in ("_active_span_processor", "_multi_log_record_processor"):
        processors = getattr(provider, name, None)
        if processors is not None:
            found = getattr(processors, "_span_processors", ())
            return bool(found or getattr(processors, "_log_record_processors", ()))
    config = getattr(provider, "_sdk_config", None)
    return bool(getattr(provider, "_metric_readers", getattr(config, "metric_readers", ())))
