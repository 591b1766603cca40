"""
Whether the fast path is open: which releases of the SDK it knows, and a self-test at start.

The modules beside this one lean on private names. They are imported only where the versions are among
`SUPPORTED`, and used only if one span, one log record and two measurements, made both ways in memory,
are the same in every field (about a millisecond). Otherwise everything goes the SDK path, one line
says why, and `status()` keeps the reason for `telemetry doctor`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.sdk.version import __version__ as sdk_version
from opentelemetry.version import __version__ as api_version

from telemetry import _diagnostics, _values

SUPPORTED: Final = frozenset({"1.45.2"})
"""Releases of opentelemetry-sdk and -api whose private names the fast path knows."""


@dataclass(frozen=True, slots=True)
class Status:
    """
    What is on the fast path in this process.

    Args:
        signals: traces, logs, metrics: those that are.
        reason: why the others are not; empty when all of them are.
        sdk: the version of opentelemetry-sdk.
    """

    signals: tuple[str, ...] = ()
    reason: str = "telemetry is not configured"
    sdk: str = sdk_version


_status = Status()


def status() -> Status:
    """What is on the fast path in this process, and why not more."""
    return _status


def install(providers: Any, handler: Any, *, wanted: str) -> None:
    """
    Open the fast path for what it fits.

    Args:
        providers: of the process (`_config.providers.Providers`), no tracer or logger handed out yet.
        handler: our handler on the root logger.
        wanted: `auto` or `off`.
    """
    global _status  # noqa: PLW0603 - one set of providers per process
    if wanted == "off":
        _status = Status((), "TELEMETRY_FAST_PATH=off")
        return
    reason = unknown_version() or failed_self_test()
    if reason:
        _status = Status((), reason)
        _diagnostics.say("fast path", f"records take the SDK path: {reason}")
        return
    _status = _opened(providers, handler)


def unknown_version() -> str:
    """Why the installed release is not one that the fast path knows; empty if it is."""
    if sdk_version in SUPPORTED and api_version in SUPPORTED:
        return ""
    known = ", ".join(sorted(SUPPORTED))
    return (
        f"opentelemetry-sdk {sdk_version} with opentelemetry-api {api_version} is not among the"
        f" releases that the fast path knows ({known})"
    )


def failed_self_test() -> str:
    """What differs between both paths with this SDK; empty when nothing does."""
    try:
        from telemetry._fast import self_test  # noqa: PLC0415 - private names, see above

        return self_test.difference()
    except Exception as error:
        return f"the self-test failed: {type(error).__name__}: {_values.text(error, 200)}"


def _opened(providers: Any, handler: Any) -> Status:
    from telemetry._fast import logs, metrics, traces  # noqa: PLC0415 - private names, see above

    opened: list[str] = []
    closed: list[str] = []
    installers: dict[str, Callable[[], bool]] = {
        "traces": lambda: traces.install(providers),
        "logs": lambda: logs.install(providers, handler),
        "metrics": lambda: metrics.install(providers),
    }
    for signal, opens in installers.items():
        if signal in providers.foreign:
            closed.append(f"{signal}: another package has set the provider")
        elif opens():
            opened.append(signal)
        else:
            closed.append(
                f"{signal}: attribute limits are set, or it does not go to OTLP/HTTP alone"
            )
    return Status(tuple(opened), "; ".join(closed))
