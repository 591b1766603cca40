"""loguru: each message once, with fields, exception, ids and severity, whatever the application sets up."""

import pytest

pytest.importorskip("loguru")

SET_UPS = {
    "as it comes": "",
    "removed and added": 'logger.remove(); logger.add(sys.stderr, level="WARNING")',
    "configured": "logger.configure(handlers=[{'sink': sys.stderr, 'serialize': True}])",
    "stdlib into loguru": """
class Intercept(logging.Handler):
    def emit(self, record):
        logger.opt(depth=6, exception=record.exc_info).log(record.levelname, record.getMessage())
logging.basicConfig(handlers=[Intercept()], level=0, force=True)
""",
    "loguru into stdlib": """
class Propagate(logging.Handler):
    def emit(self, record):
        logging.getLogger(record.name).handle(record)
logger.add(Propagate(), format="{message}")
""",
}


@pytest.mark.parametrize("set_up", SET_UPS.values(), ids=SET_UPS)
def test_messages_arrive_once_with_everything(run, receiver, set_up):
    """Fields of bind and of the call, the exception, the ids of the scope, and the level's severity."""
    run(
        "import logging, sys\nimport telemetry\nfrom loguru import logger\n"
        + set_up
        + """
with telemetry.span("s"), telemetry.log_context(correlation_id="c-1"):
    logger.bind(user_id="u-1").info("hello {}", "world", step=1)
    logger.success("done")
    try:
        raise LookupError("no such order")
    except LookupError:
        logger.exception("failed")
    logging.getLogger("stdlib").warning("of stdlib")
logger.critical("outside")
logger.debug("too small")
""",
        wrapped=True,
        endpoint=receiver.url,
    )
    (span,) = receiver.spans
    found = {
        log["message"]: (
            log["severity"],
            log["span_id"] == span["span_id"],
            {
                name: value
                for name, value in log["attributes"].items()
                if not name.startswith("code.") and name != "exception.stacktrace"
            },
        )
        for log in receiver.logs
    }
    # what is below the sink's level, the application itself hands to stdlib here
    assert (found.pop("too small", None) is not None) == ("Propagate" in set_up)
    ids = {"correlation.id": "c-1"}
    assert found == {
        "hello world": (9, True, {**ids, "user.id": "u-1", "step": 1}),
        "done": (10, True, ids),
        "failed": (
            17,
            True,
            {**ids, "exception.type": "LookupError", "exception.message": "no such order"},
        ),
        "of stdlib": (13, True, ids),
        "outside": (21, False, {}),
    }
    messages = [message for message in receiver.messages if message != "too small"]
    assert sorted(messages) == sorted(found)
    places = {log["message"]: log["attributes"]["code.file.path"] for log in receiver.logs}
    assert {path.rpartition("/")[2] for path in places.values()} == {"script.py"}
