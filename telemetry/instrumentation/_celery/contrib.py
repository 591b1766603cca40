"""
One owner: OpenTelemetry's own Celery instrumentation stands down while ours is on.

Both at once would make two spans per publish and per attempt, with different names. An application
that wants the other one sets OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=celery, which is about ours then.
"""

from typing import Any, Final

from telemetry import _diagnostics

MODULE: Final = "opentelemetry.instrumentation.celery"
TEXT: Final = (
    "CeleryInstrumentor is left off: otelier observes Celery itself. Remove the call, or set"
    " OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=celery to use it instead"
)


def stand_down(module: Any) -> None:
    """Switch it off where it is on, and keep it from being switched on."""
    kind = module.CeleryInstrumentor
    instance = getattr(kind, "_instance", None)
    if instance is not None and instance.is_instrumented_by_opentelemetry:
        instance.uninstrument()
        _diagnostics.say("celery rival", TEXT)
    if hasattr(kind, "_otelier_original"):
        return

    def instrument(self: Any, **kwargs: Any) -> None:  # noqa: ARG001 - what it replaces
        _diagnostics.say("celery rival", TEXT)

    kind._otelier_original = kind._instrument  # noqa: SLF001 - the hook of all instrumentations
    kind._instrument = instrument  # noqa: SLF001 - as above


def let_go(module: Any) -> None:
    """Undo `stand_down`."""
    kind = module.CeleryInstrumentor
    original = getattr(kind, "_otelier_original", None)
    if original is not None:
        kind._instrument = original  # noqa: SLF001 - as above
        del kind._otelier_original  # noqa: SLF001 - as above
