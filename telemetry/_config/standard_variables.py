"""
OpenTelemetry's variables that the SDK reads by itself: checked before it does.

The SDK raises for some wrong values (a limit that is no number), and then nothing of telemetry would be
set up; for others it logs, before anybody listens. Here each has a check and a fix in words. `problems`
is part of what `settings.read` finds; under the wrapper `use_defaults` then takes the wrong ones
out of the environment, so that the SDK, and the processes that inherit it, use their defaults.

`opentelemetry.propagate` is a special case: it raises while it is *imported* when OTEL_PROPAGATORS names
a propagator that is not installed. `import_propagators` imports it without that name. The wrapper
itself imports it before any code of ours; `propagators` has what can be done about that.
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from importlib.metadata import entry_points
from typing import Final

from telemetry._version import NAME

PROPAGATORS: Final = "OTEL_PROPAGATORS"
PACKAGES: Final = {
    "xray": "opentelemetry-propagator-aws-xray",
    "xray-lambda": "opentelemetry-propagator-aws-xray",
    "b3": "opentelemetry-propagator-b3",
    "b3multi": "opentelemetry-propagator-b3",
    "jaeger": "opentelemetry-propagator-jaeger",
    "ottrace": "opentelemetry-propagator-ot-trace",
    "gcp_trace_context": "opentelemetry-propagator-gcp",
}
"""Name of a propagator -> the package that has it."""
_SAMPLERS: Final = (
    *("always_on", "always_off", "parentbased_always_on", "parentbased_always_off"),
    *("traceidratio", "parentbased_traceidratio"),
)


def _number(text: str) -> bool:
    try:
        return int(text) >= 0
    except ValueError:
        return False


def _rate(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _one_of(*words: str) -> tuple[Callable[[str], bool], str]:
    return (lambda text: text.lower() in words), f"one of {', '.join(words)}"


def _installed(group: str, *also: str) -> Callable[[str], bool]:
    def all_there(text: str) -> bool:
        names = [word.strip() for word in text.split(",") if word.strip()]
        known = {
            point.name
            for point in (entry_points(group=group) if names else ())
            if point.dist is None or point.dist.name != NAME  # ours only stand in for others
        }
        return all(name in known or name.lower() in also for name in names)

    return all_there


_NUMBER: Final = (_number, "a whole number, 0 or more")
_LIMITS: Final = (
    *("ATTRIBUTE_COUNT", "ATTRIBUTE_VALUE_LENGTH", "SPAN_ATTRIBUTE_COUNT"),
    *("SPAN_ATTRIBUTE_VALUE_LENGTH", "SPAN_EVENT_COUNT", "SPAN_LINK_COUNT"),
    *("EVENT_ATTRIBUTE_COUNT", "LINK_ATTRIBUTE_COUNT", "LOGRECORD_ATTRIBUTE_COUNT"),
    "LOGRECORD_ATTRIBUTE_VALUE_LENGTH",
)
_TIMES: Final = ("BSP_EXPORT_TIMEOUT", "BLRP_EXPORT_TIMEOUT", "METRIC_EXPORT_TIMEOUT")
TABLE: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    **{f"OTEL_{name}_LIMIT": _NUMBER for name in _LIMITS},
    **{f"OTEL_{name}": _NUMBER for name in _TIMES},
    "OTEL_TRACES_SAMPLER": _one_of(*_SAMPLERS),
    "OTEL_TRACES_SAMPLER_ARG": (_rate, "a number from 0 to 1"),
    "OTEL_METRICS_EXEMPLAR_FILTER": _one_of("always_on", "always_off", "trace_based"),
    "OTEL_EXPORTER_OTLP_INSECURE": _one_of("true", "false"),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": _one_of(
        "cumulative", "delta", "lowmemory"
    ),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": _one_of(
        "explicit_bucket_histogram", "base2_exponential_bucket_histogram"
    ),
    "OTEL_PYTHON_ID_GENERATOR": (
        _installed("opentelemetry_id_generator", "random"),
        "`random`, or the name of an installed generator",
    ),
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": (
        _installed("opentelemetry_resource_detector", "*"),
        "names of installed detectors, separated by commas",
    ),
    PROPAGATORS: (
        _installed("opentelemetry_propagator", "none"),
        "names of installed propagators such as tracecontext,baggage, or install the one that is meant",
    ),
}
"""Variable -> whether a value can be used, and what a good one looks like."""


def problems(environ: Mapping[str, str]) -> dict[str, str]:
    """Variable -> what is wrong with its value, and the fix."""
    found = {}
    for variable, (usable, fix) in TABLE.items():
        text = environ.get(variable, "").strip()
        if not text:
            continue
        try:
            good = usable(text)
        except Exception:
            good = False
        if not good:
            shown, words = repr(text)[:100], fix
            if variable == PROPAGATORS and (packages := _packages(text)):
                words = f"installed ones such as tracecontext,baggage, or pip install {packages}"
            found[variable] = f"{variable}={shown} cannot be used; give {words}, or leave it out"
    return found


def use_defaults(environ: MutableMapping[str, str] | None = None) -> None:
    """Take wrong values out of the environment; of a list of propagators, the unknown ones."""
    environ = os.environ if environ is None else environ
    for variable in problems(environ):
        kept = _known_propagators(environ[variable]) if variable == PROPAGATORS else ""
        if kept:
            environ[variable] = kept
        else:
            del environ[variable]


def import_propagators() -> None:
    """Import `opentelemetry.propagate`, whatever OTEL_PROPAGATORS says."""
    given = os.environ.get(PROPAGATORS, "")
    if not given.strip() or "opentelemetry.propagate" in sys.modules:
        return
    usable = TABLE[PROPAGATORS][0]
    if usable(given):
        return
    kept = _known_propagators(given)
    try:
        if kept:
            os.environ[PROPAGATORS] = kept
        else:
            del os.environ[PROPAGATORS]
        importlib.import_module("opentelemetry.propagate")
    finally:
        os.environ[PROPAGATORS] = given


def _packages(given: str) -> str:
    """The packages of known propagators that are not installed."""
    usable = TABLE[PROPAGATORS][0]
    names = [word.strip() for word in given.split(",")]
    return " ".join(PACKAGES[name] for name in names if name in PACKAGES and not usable(name))


def _known_propagators(given: str) -> str:
    usable = TABLE[PROPAGATORS][0]
    return ",".join(word.strip() for word in given.split(",") if word.strip() and usable(word))
