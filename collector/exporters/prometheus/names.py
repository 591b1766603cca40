"""
How OTLP's names become Prometheus' names: the tables of OpenTelemetry's compatibility page.

`http.server.duration` in `ms` is `http_server_duration_milliseconds`; a sum that only grows ends in
`_total`; a ratio (unit `1`) of a gauge ends in `_ratio`.
https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from collector.self_metrics.exposition import label_of, name_of

UNITS: Final = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "TiBy": "tibibytes",
    "KBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "TBy": "terabytes",
    "m": "meters",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "g": "grams",
    "Cel": "celsius",
    "Hz": "hertz",
    "%": "percent",
}
PER: Final = {
    "s": "second",
    "m": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
    "mo": "month",
    "y": "year",
}

RESERVED: Final = {"histogram": "le", "summary": "quantile"}
"""The label that the lines of a type need for themselves."""


def unit_words(unit: str) -> str:
    """A UCUM unit as words of a name; what stands in braces is a comment."""
    unit = re.sub(r"\{[^}]*\}", "", unit).strip()
    main, slash, per = unit.partition("/")
    words = UNITS.get(main, main)
    if slash and per:
        words += f"_per_{PER.get(per, per)}"
    return re.sub(r"[^a-zA-Z0-9]+", "_", words).strip("_")


def metric_name(
    name: str, unit: str, *, monotonic: bool, gauge: bool, namespace: str, suffixes: bool
) -> str:
    """
    The name of a metric for Prometheus.

    Args:
        name: of the metric.
        unit: of the metric.
        monotonic: whether it is a sum that only grows.
        gauge: whether it is a gauge.
        namespace: what stands in front, empty for nothing.
        suffixes: whether unit and type become part of the name.
    """
    made = name_of(f"{namespace}_{name}" if namespace else name)
    if not suffixes:
        return made
    made = made.removesuffix("_total") if monotonic else made
    ratio = unit == "1" and gauge
    words = "ratio" if ratio else "" if unit == "1" else unit_words(unit)
    parts = made.split("_")
    if words and not all(word in parts for word in words.split("_")):
        made += f"_{words}"
    return f"{made}_total" if monotonic else made


def labels_of(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """
    Labels with valid names.

    Two attributes that become the same label share it: their values are joined with `;`, in the
    order of the attributes' names.
    """
    found: dict[str, str] = {}
    for key, text in sorted(pairs):
        name = label_of(key)
        found[name] = f"{found[name]};{text}" if name in found else text
    return found


def joined(fixed: Mapping[str, str], more: Mapping[str, str], reserved: str = "") -> dict[str, str]:
    """
    Labels and further ones; none of them hides another.

    A further label whose name is taken gets `exported_` in front, as Prometheus itself names a label
    of a target that it needs for its own. An empty label is left out: for Prometheus it is none.

    Args:
        fixed: labels that keep their names.
        more: labels that give way.
        reserved: a name that no label may have, empty for none.
    """
    moved: dict[str, str] = {}
    for name, text in more.items():
        while name in fixed or name in moved or name == reserved:
            name = f"exported_{name}"  # noqa: PLW2901 - until it is free
        if text:
            moved[name] = text.replace("\0", "\ufffd")  # Prometheus' parser ends at a NUL
    return {**moved, **fixed}
