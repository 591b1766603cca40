"""The public types of `telemetry`, as a program sees them; never run, it has to type-check."""

from collections.abc import Awaitable, Callable
from typing import Any, assert_type

from opentelemetry import trace

import telemetry
from telemetry.testing import Capture, capture


def setting_up() -> None:
    """Arguments are typed and keyword-only; the results say what they are."""
    telemetry.configure()
    telemetry.configure(
        service_name="orders",
        endpoint="http://localhost:4318",
        headers={"authorization": "Bearer x"},
        resource_attributes={"deployment.environment.name": "test"},
        traces_exporter=["otlp", "console"],
        logs_exporter="otlp",
        exit_timeout=2,
        baggage_keys=("correlation_id",),
        redaction=telemetry.Redaction(keys={"iban": "hash"}, patterns={"no": "C-[0-9]+"}),
        redaction_allow_keys=["public_token"],
    )
    assert_type(telemetry.flush(), bool)
    assert_type(telemetry.report(), dict[str, dict[str, Any]])
    telemetry.shutdown(timeout=1.5)
    assert_type(telemetry.__version__, str)


def logging_things() -> None:
    """Bind and unbind keep the type; any keyword is fine."""
    logger = telemetry.get_logger(__name__, component="risk")
    assert_type(logger, telemetry.BoundLogger)
    assert_type(logger.bind(worker=1).unbind("component"), telemetry.BoundLogger)
    logger.info("scored %s", "o-1", score=0.5, extra={"n": 1})
    logger.error("failed", exc_info=ValueError("x"), stack_info=True)
    assert_type(logger.isEnabledFor(10), bool)


@telemetry.log_context(operation="add")
def add(left: int, *, right: int = 0) -> int:
    """A decorated function keeps its signature."""
    return left + right


@telemetry.span("load")
async def load(name: str) -> bytes:
    """A decorated coroutine function too."""
    return name.encode()


@telemetry.LogContext("work")
def work() -> str:
    """And so does a timed one."""
    return "done"


async def using_them() -> None:
    """The types of results and blocks."""
    assert_type(add(1, right=2), int)
    assert_type(await load("x"), bytes)
    assert_type(work(), str)
    callback: Callable[[str], Awaitable[bytes]] = load
    await callback("y")
    with telemetry.log_context(tenant_id=1, own=[1, 2]) as block:
        assert_type(block, telemetry.log_context)
    async with telemetry.span("step", kind=trace.SpanKind.CLIENT, n=1) as current:
        assert_type(current, trace.Span)
    with telemetry.LogContext("flow", tenant_id="t") as flow:
        flow.add_metric("nodes", 5)
    telemetry.bind_context(user_id=7)
    telemetry.set_request_context(request_id=None, correlation_id="c")
    telemetry.clear_context()
    context = telemetry.current_context()
    context["tenant_id"]


def failing() -> list[str]:
    """Errors carry what went wrong."""
    try:
        telemetry.configure(log_format="xml")
    except telemetry.MissingDependency as error:
        return [error.requirement]
    except telemetry.ConfigError as error:
        return error.problems
    return []


def testing() -> list[dict[str, Any]]:
    """The test kit gives plain dicts."""
    with capture(level="INFO", varying=True) as captured:
        assert_type(captured, Capture)
    return [*captured.spans, *captured.logs, *captured.metrics]
