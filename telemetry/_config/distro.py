"""
The entry points for `opentelemetry-instrument`: distro and configurator.

The wrapper asks the distro first (defaults for the environment), then the configurator (providers),
then the distro once per installed instrumentation. An exception in any of them would end the
wrapper's start-up half-way, so both classes catch everything, say it on stderr and leave the
application to run without telemetry.

Celery is observed by `telemetry.instrumentation.celery`, in the place of contrib's `celery`
instrumentation. What the distro leaves out: the `logging` instrumentation, since our handler does its work and two
handlers mean two records; and contrib's `fastapi` instrumentation where FastAPI traces itself
(0.142 and later), since exactly one component may own the server span.
"""

import functools
import os
from importlib.metadata import EntryPoint, PackageNotFoundError, version
from typing import Any, Final

from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]  # upstream excludes this module from type checks

from telemetry import _diagnostics, _values
from telemetry._config import configure as setup
from telemetry.instrumentation import celery

FASTAPI_TRACES_ITSELF: Final = (0, 142)
DEFAULTS: Final = {
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_LOGS_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
    "OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION": "false",
}
"""Variables that the distro sets when they are unset."""


class Distro(BaseDistro):  # type: ignore[misc]  # see the import
    """Defaults for the environment, and the choice of instrumentations."""

    def _configure(self, **kwargs: Any) -> None:  # noqa: ARG002 - the wrapper's signature
        for variable, value in DEFAULTS.items():
            if not os.environ.get(variable, "").strip():
                os.environ[variable] = value

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Switch one instrumentation on, unless another component does its work."""
        if entry_point.name in skipped():
            return
        try:
            if entry_point.name == "celery":
                celery.instrument_from_environment()
                return
            if entry_point.name == "django" and not os.environ.get("DJANGO_SETTINGS_MODULE"):
                from telemetry.instrumentation._wsgi import frameworks  # noqa: PLC0415 - as below

                later = functools.partial(super().load_instrumentor, entry_point, **kwargs)
                frameworks.when_django_is_ready(later)
                return
            super().load_instrumentor(entry_point, **kwargs)
        except ModuleNotFoundError:
            return  # the library that it instruments is not installed
        except Exception as error:
            _diagnostics.say(
                f"instrumentation {entry_point.name}",
                f"instrumentation {entry_point.name} is off: {_values.text(error, 500)}",
            )


class Configurator:
    """Providers, handler and exit hook, from the environment."""

    def configure(self, **kwargs: Any) -> None:  # noqa: ARG002 - the wrapper's signature
        """Set up; without telemetry, if that fails."""
        try:
            setup.configure_from_environment()
            if setup.pipeline() is not None:
                from telemetry.instrumentation import fastapi  # noqa: PLC0415 - not when disabled
                from telemetry.instrumentation._wsgi import frameworks  # noqa: PLC0415 - the same

                fastapi.install()
                frameworks.install()
        except Exception as error:
            text = f"telemetry is off: {_values.text(error, 1000)}"
            _diagnostics.say("configurator", text, level="error", always=True)


def skipped() -> tuple[str, ...]:
    """The instrumentations that the distro leaves out in this environment."""
    return (
        ("logging", "fastapi") if _installed("fastapi") >= FASTAPI_TRACES_ITSELF else ("logging",)
    )


def _installed(package: str) -> tuple[int, ...]:
    """Major and minor version of a package; empty when it is not installed."""
    try:
        parts = version(package).split(".")[:2]
    except PackageNotFoundError:
        return ()
    return tuple(int(part) if part.isdigit() else 0 for part in parts)
