"""
The pipeline that runs in this process, and what becomes of its records.

`configure` sets it; everything else that wants to know whether and how telemetry runs asks here.
Below all of them in the import order: nothing of ours is imported but for types.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from telemetry._config.pipeline import Pipeline

_pipeline: "Pipeline | None" = None


def pipeline() -> "Pipeline | None":
    """What runs in this process; None before `configure()`, and where telemetry is disabled."""
    return _pipeline


def use(pipeline: "Pipeline") -> None:
    """Let this pipeline be the one of the process: once, as there is one set of providers."""
    global _pipeline  # noqa: PLW0603 - see above
    _pipeline = pipeline


def report() -> dict[str, dict[str, Any]]:
    """
    What became of every record of this process, per signal.

    Returns:
        {"traces": {"produced", "exported", "pending", "dropped": {reason: count}}, ...}, where
        produced = exported + pending + spooled + everything dropped; `spooled` is there where the
        signal has a spool, and `adopted` where records of earlier processes were delivered.
    """
    return {} if _pipeline is None else _pipeline.report()
