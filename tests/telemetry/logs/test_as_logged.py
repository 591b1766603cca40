"""Records are stored as they were logged: whatever handlers, filters and factories write into them."""

import logging
import logging.config

import pytest

import telemetry
from telemetry._logs import severity

CONFIGURED = """
import logging, logging.config, telemetry

class Colour(logging.Formatter):
    def format(self, record):
        record.levelname = f"\\033[32m{record.levelname}\\033[0m"
        return super().format(record)

class Hide(logging.Formatter):
    def format(self, record):
        record.exc_info = record.exc_text = record.stack_info = None
        return super().format(record)

class Shorten(logging.Formatter):
    def format(self, record):
        record.msg, record.args = record.getMessage()[:3], ()
        return record.msg

class Cut(logging.Filter):
    def filter(self, record):
        record.msg, record.args = record.getMessage()[:3], ()
        return True

class Ids(logging.Filter):
    def filter(self, record):
        record.correlation_id, record.request_id, record.user_id = "-", "n/a", "anonymous"
        record.tenant_id, record.task_id, record.order_id = None, "???", ""
        record.trace_id = "-"
        return True

def use(place, kind):
    handler = {"class": "logging.StreamHandler"}
    if place == "formatters":
        handler["formatter"] = "it"
    else:
        handler["filters"] = ["it"]
    logging.config.dictConfig({
        "version": 1, "disable_existing_loggers": False, place: {"it": {"()": kind}},
        "handlers": {"h": handler}, "root": {"handlers": ["h"], "level": "INFO"},
    })

log = logging.getLogger("shop")
with telemetry.span("s"), telemetry.log_context(
    correlation_id="c-1", request_id="r-1", user_id="u-1", tenant_id="t-1", order_id="o-1"
):
    for place, kind in (
        ("formatters", Colour), ("formatters", Hide), ("formatters", Shorten), ("filters", Cut),
        ("filters", Ids),
    ):
        use(place, kind)
        log.info("hello %s", kind.__name__)
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("failed %s", kind.__name__)
"""

IDS = {
    "correlation.id": "c-1",
    "request.id": "r-1",
    "user.id": "u-1",
    "tenant.id": "t-1",
    "order.id": "o-1",
}


def seen(log):
    """What matters of a record."""
    return {
        name: value
        for name, value in log["attributes"].items()
        if not name.startswith("code.")
        and name not in ("exception.message", "exception.stacktrace")
    }


def test_what_configured_handlers_write_is_not_stored(run, receiver):
    """After dictConfig level, message, exception and ids are those of the call and its scope."""
    run(CONFIGURED, wrapped=True, endpoint=receiver.url)
    kinds = ("Colour", "Hide", "Shorten", "Cut", "Ids")
    assert [(log["message"], log["severity"], seen(log)) for log in receiver.logs] == [
        expected
        for kind in kinds
        for expected in (
            (f"hello {kind}", 9, IDS),
            (f"failed {kind}", 17, {**IDS, "exception.type": "ZeroDivisionError"}),
        )
    ]
    assert {log["trace_id"] for log in receiver.logs} == {receiver.spans[0]["trace_id"]}


@pytest.fixture
def logger():
    """A stdlib logger whose filters end with the test, as does a record factory."""
    made = logging.getLogger("as.logged")
    factory = logging.getLogRecordFactory()
    made.setLevel(logging.DEBUG)
    yield made
    made.filters.clear()
    made.setLevel(logging.NOTSET)
    logging.setLogRecordFactory(factory)


def writing(**fields):
    """A filter of a logger that writes fields into each record."""

    def write(record):
        record.__dict__.update(fields)
        return True

    return write


def logged(captured):
    return [record["attributes"] for record in captured.logs]


def test_a_filter_of_the_logger_replaces_no_id_of_the_scope(captured, logger):
    """What a filter writes is kept where the scope knows nothing, and dropped where it does."""
    logger.addFilter(writing(correlation_id="35ae5775", user_id="x-9", region="eu", cart="theirs"))
    with telemetry.log_context(correlation_id="c-1", cart="ours"):
        logger.info("one")
    assert logged(captured) == [
        {"correlation.id": "c-1", "cart": "ours", "user.id": "x-9", "region": "eu"}
    ]


def test_a_record_factory_replaces_no_id_of_the_scope(captured, logger):
    """The same for a record factory, also for records of get_logger."""
    before = logging.getLogRecordFactory()

    def factory(*args, **kwargs):
        record = before(*args, **kwargs)
        record.correlation_id, record.user_id, record.build = "N/A", "theirs", 7
        return record

    logging.setLogRecordFactory(factory)
    with telemetry.log_context(correlation_id="c-1", user_id="u-1"):
        logger.info("stdlib")
        telemetry.get_logger("as.logged").info("ours", step=1)
    ids = {"correlation.id": "c-1", "user.id": "u-1", "build": 7}
    assert logged(captured) == [ids, {**ids, "step": 1}]


def test_what_the_call_gave_wins(captured, logger):
    """`extra=` and keywords replace the scope's id, even if a filter writes over them later."""
    logger.addFilter(writing(correlation_id="-", user_id="theirs"))
    with telemetry.log_context(correlation_id="c-1", user_id="u-1"):
        logger.info("extra", extra={"correlation_id": "c-2"})
        telemetry.get_logger("as.logged").bind(user_id="u-2").info("keyword", correlation_id="c-3")
    assert logged(captured) == [
        {"correlation.id": "c-2", "user.id": "u-1"},
        {"correlation.id": "c-3", "user.id": "u-2"},
    ]


def test_the_applications_own_record_is_left_alone(captured, logger):
    """The application's handlers read what its filters wrote, and nothing of ours."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(
        (record.correlation_id, [name for name in vars(record) if "otelier" in name])
    )
    logger.addHandler(handler)
    logger.addFilter(writing(correlation_id="-"))
    try:
        with telemetry.log_context(correlation_id="c-1"):
            logger.info("one", extra={"k": 1})
    finally:
        logger.removeHandler(handler)
    assert lines == [("-", [])]
    assert logged(captured) == [{"correlation.id": "c-1", "k": 1}]


@pytest.mark.parametrize(
    "nothing", ["", "-", "--", "N/A", "n/a", "???", "None", "null", "unknown", "<none>", "0" * 32]
)
def test_a_placeholder_is_never_an_id(captured, logger, nothing):
    """Whoever gave it: the scope's id stays, and without a scope there is none."""
    with telemetry.log_context(correlation_id="c-1"):
        logger.info("extra", extra={"correlation_id": nothing})
        telemetry.get_logger("as.logged").info("keyword", correlation_id=nothing)
    logger.info("outside", extra={"correlation_id": nothing, "note": nothing})
    assert logged(captured) == [{"correlation.id": "c-1"}] * 2 + [{"note": nothing}]


def test_a_message_that_a_filter_of_the_logger_made_safe_stays_safe(captured, logger):
    """A filter of the logger speaks for all readers: what it took out of a message is not stored."""

    def mask(record):
        record.msg, record.args = "card ****", ()
        return True

    logger.addFilter(mask)
    logger.info("card %s", "4711")
    assert [record["message"] for record in captured.logs] == ["card ****"]


LEVELS = [
    (-5, None, 0),
    (0, None, 0),
    (1, None, 1),
    (5, "TRACE", 1),
    (9, None, 4),
    (11, None, 6),
    (15, "VERBOSE", 5),
    (22, None, 11),
    (25, "NOTICE", 10),
    (26, None, 12),
    (35, "  Severe ", 17),
    (45, "alert", 19),
    (47, "Emergency", 21),
    (60, None, 24),
    (10**6, None, 24),
]


def test_any_level_has_its_severity(run, receiver):
    """Any integer has a severity, and a registered name says it where the name is known."""
    run(
        f"""
        import logging
        logger = logging.getLogger("levels")
        for level, name, _ in {LEVELS}:
            if name:
                logging.addLevelName(level, name)
            logger.handle(logger.makeRecord("levels", level, "", 0, "%s", (level,), None))
        """,
        wrapped=True,
        endpoint=receiver.url,
    )
    assert [(int(log["message"]), log["severity"]) for log in receiver.logs] == [
        (level, number) for level, _, number in LEVELS
    ]


WORDS = {
    "trace": 1, "TRACE3": 3, "Finest": 1, "Debug": 5, "verbose": 5, "FINER": 5, "fine": 6,
    "Config": 7, "debug4": 8, "Informational": 9, "information": 9, " info ": 9, "NOTICE": 10,
    "Warn": 13, "WARNING": 13, "w a r n": 13, "warn2": 14, "err": 17, "Error": 17, "SEVERE": 17,
    "dpanic": 18, "Alert": 19, "panic": 19, "crit": 21, "Critical": 21, "fatal": 21, "EMERG": 21,
    "Emergency": 21, "fatal4": 24,
}  # fmt: skip


def test_any_word_for_a_level_has_its_severity(captured):
    """The words of appendix B, of syslog and of journald, in any case and with spaces."""
    logger = telemetry.get_logger("levels.of.words")
    logging.getLogger("levels.of.words").setLevel(1)
    for word in WORDS:
        logger.log(word, word)
    said = {record["message"]: record["level"] for record in captured.logs}
    assert list(said) == list(WORDS)
    assert said["NOTICE"] == "NOTICE"
    assert {word: severity.number(severity.level_of(word)) for word in WORDS} == WORDS


@pytest.mark.parametrize(
    "how",
    [
        "root.handlers.clear()",
        "root.handlers = [logging.StreamHandler()]",
        "[root.removeHandler(h) for h in root.handlers[:]]; logging.basicConfig(level=20)",
        "log.propagate = False; log.addHandler(logging.StreamHandler())",
        "logging.getLogger('shop').propagate = False",
        (
            "logging.config.dictConfig({'version': 1, 'disable_existing_loggers': False, 'loggers':"
            " {'shop.batch': {'level': 'INFO', 'propagate': False}}})"
        ),
        "logging.shutdown()",
        "telemetry_root = root.handlers[0].close()",
    ],
)
def test_no_set_up_of_handlers_loses_a_record(run, receiver, how):
    """propagate=False and cleared, replaced or closed handlers lose nothing, and double nothing."""
    run(
        f"""
        import logging, logging.config
        root, log = logging.getLogger(), logging.getLogger("shop.batch")
        log.warning("1")
        {how}
        for number in range(2, 5):
            log.error("%s", number)
        """,
        wrapped=True,
        endpoint=receiver.url,
    )
    assert receiver.messages == ["1", "2", "3", "4"]


def test_a_handler_that_passes_records_on_doubles_none(captured):
    """A record that comes again as itself, from a handler or a queue, is stored once."""
    inner = logging.getLogger("passing.on")

    class Again(logging.Handler):
        def emit(self, record):
            for handler in logging.getLogger().handlers:
                handler.handle(record)

    again = Again()
    inner.addHandler(again)
    inner.propagate = False
    try:
        inner.warning("one")
    finally:
        inner.removeHandler(again)
        inner.propagate = True
    assert [record["message"] for record in captured.logs] == ["one"]
