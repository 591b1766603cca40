"""structlog's own stdlib set-ups, without a line of ours: message, fields, ids and exception type."""

import pytest

pytest.importorskip("structlog")

LOGGING = """
log = structlog.get_logger("shop")
root = logging.getLogger()
handler = logging.StreamHandler()
handler.setFormatter(FORMATTER)
root.addHandler(handler)
root.setLevel("INFO")
with telemetry.span("s"), telemetry.log_context(correlation_id="c-1", tenant_id="t-1"):
    structlog.contextvars.bind_contextvars(user_id="u-1", cart=[1, 2])
    log.info("order placed", a=1, b={"c": 2})
    log.warning("pos %s", "x", tenant_id="-")
    try:
        raise LookupError("no such order")
    except LookupError:
        log.exception("order failed", q=1)

    async def main():
        await log.ainfo("from a coroutine", z=1)

    asyncio.run(main())
    logging.getLogger("other").info("foreign", extra={"k": 1})
"""
HEAD = """
import asyncio, logging
import structlog
import telemetry

def chain(*last):
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars, structlog.stdlib.filter_by_level,
            structlog.stdlib.add_logger_name, structlog.stdlib.add_log_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.TimeStamper(fmt="iso"), structlog.processors.StackInfoRenderer(),
            *last,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return logging.Formatter("%(message)s")

"""
SET_UPS = {
    "wrap_for_formatter": """
chain(structlog.processors.format_exc_info, structlog.processors.UnicodeDecoder(),
      structlog.stdlib.ProcessorFormatter.wrap_for_formatter)
FORMATTER = structlog.stdlib.ProcessorFormatter(processor=structlog.processors.JSONRenderer())
""",
    "exceptions of the formatter": """
chain(structlog.stdlib.ProcessorFormatter.wrap_for_formatter)
FORMATTER = structlog.stdlib.ProcessorFormatter(processors=[
    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
    structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])
""",
    "tracebacks as dicts": """
chain(structlog.processors.dict_tracebacks, structlog.stdlib.ProcessorFormatter.wrap_for_formatter)
FORMATTER = structlog.stdlib.ProcessorFormatter(processor=structlog.processors.JSONRenderer())
""",
    "rendered as JSON": """
FORMATTER = chain(structlog.processors.format_exc_info, structlog.processors.JSONRenderer())
""",
    "as keywords": """
FORMATTER = chain(structlog.stdlib.render_to_log_kwargs)
""",
    "our processor": """
chain(structlog.processors.format_exc_info, telemetry.structlog_processor,
      structlog.stdlib.ProcessorFormatter.wrap_for_formatter)
FORMATTER = structlog.stdlib.ProcessorFormatter(processor=structlog.processors.JSONRenderer())
""",
}


@pytest.mark.parametrize("set_up", SET_UPS.values(), ids=SET_UPS)
def test_events_arrive_as_message_and_fields(run, receiver, set_up):
    """Each event once, with its fields, the scope's ids and its exception, in each set-up."""
    run(HEAD + set_up + LOGGING, wrapped=True, endpoint=receiver.url)
    ids = {"correlation.id": "c-1", "tenant.id": "t-1", "user.id": "u-1", "cart": [1, 2]}
    assert [
        (
            log["message"],
            log["severity"],
            {
                name: value
                for name, value in log["attributes"].items()
                if not name.startswith("code.") and name != "exception.stacktrace"
            },
        )
        for log in receiver.logs
    ] == [
        ("order placed", 9, {**ids, "a": 1, "b": {"c": 2}}),
        ("pos x", 13, ids),
        (
            "order failed",
            17,
            {
                **ids,
                "q": 1,
                "exception.type": "LookupError",
                "exception.message": "no such order",
            },
        ),
        ("from a coroutine", 9, {**ids, "z": 1}),
        ("foreign", 9, {"correlation.id": "c-1", "tenant.id": "t-1", "k": 1}),
    ]
    stacks = [log["attributes"].get("exception.stacktrace", "") for log in receiver.logs]
    assert [i for i, stack in enumerate(stacks) if "script.py" in stack] == [2]


@pytest.mark.parametrize(
    ("rendered", "kind", "message"),
    [
        ("Traceback (most recent call last):\n  File x\n    1/0\nValueError: a\nb: c", "ValueError", "a\nb: c"),
        ("Traceback (most recent call last):\n  File x\nKeyError", "KeyError", ""),
        (
            ("Traceback (most recent call last):\n  File x\nKeyError: 1\n\nDuring handling of the"
            " above exception, another exception occurred:\n\nTraceback (most recent call last):\n"
            "  File y\nshop.Broken: two"),
            "shop.Broken",
            "two",
        ),
    ],
)  # fmt: skip
def test_an_exception_that_is_over_is_read_from_its_text(captured, rendered, kind, message):
    """Type and message come from the end of the traceback when the exception is gone."""
    import telemetry

    telemetry.structlog_processor(None, "error", {"event": "e", "exception": rendered})
    assert [record["attributes"] for record in captured.logs] == [
        {"exception.type": kind, "exception.message": message}
        if message
        else {"exception.type": kind}
    ]
