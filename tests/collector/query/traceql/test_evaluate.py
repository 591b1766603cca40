"""What conditions mean: types, nil, arrays, events, regular expressions, arithmetic."""

import pytest

from collector.query.traceql.evaluate import condition
from collector.query.traceql.parser import parse
from collector.query.traceql.view import Trace
from tests.collector.query.traceql.spans import TRACE, span

OTHER = "0000000000000000000000000000b002"
ROOT = span(
    1,
    name="POST /orders",
    kind=2,
    status=2,
    message="card declined",
    took_ms=500,
    service="checkout",
    resource={"service.version": "1.4", "both": "resource", "only": 7},
    scope=("shop.orders", "0.9", {"mode": "batch"}),
    events=(
        ("start", 1, {"step": 1}),
        ("exception", 30, {"exception.type": "ValueError", "step": 2}),
    ),
    links=((OTHER, "00000000000000cd", {"reason": "retry"}),),
    code=500,
    score=0.5,
    whole=500.0,
    text="500",
    flag=True,
    off=False,
    yes="true",
    both="span",
    tags=["a", "k1"],
    mixed=["a", 5],
    empty=[],
    blob=b"\x00",
    map={"x": 1},
    nothing=None,
    lines="one\ntwo",
    nan=float("nan"),
    correlation__id="corr-1",
    **{"my attr": "x"},
)
CHILD = span(2, parent=1, name="query", kind=3, status=1, took_ms=600, service=None)
WHOLE = Trace([ROOT, CHILD]).tree
ROOT_SPAN, CHILD_SPAN = WHOLE.spans


def holds(text, found=ROOT_SPAN):
    """Whether `{ text }` is true for a span."""
    (stage,) = parse(f"{{ {text} }}").stages
    return condition(stage.expression)(found)


TRUE = [
    # Numbers compare as numbers, int or float, from either side.
    "span.code = 500", "span.code = 500.0", "span.whole = 500", "span.code >= 499.5", "500 = span.code",
    "400 < span.code", "span.score > 0", "span.score < 1", "span.code != 501", "span.code = span.whole",
    # Text, booleans; a bare attribute means `= true`.
    'span.text = "500"', 'span.text != "501"', 'span.text < "6"', "span.flag", "span.flag = true", "!span.off",
    "span.off = false", 'span.yes = "true"', 'span."my attr" = "x"', '."my attr" = "x"',
    # Scopes: span first, then resource, then the others.
    '.both = "span"', 'resource.both = "resource"', ".only = 7", 'resource.service.name = "checkout"',
    '.service.version = "1.4"', 'instrumentation.mode = "batch"', '.mode = "batch"', '.reason = "retry"',
    '.exception.type = "ValueError"', 'span.correlation.id = "corr-1"', '.correlation.id = "corr-1"',
    # Presence.
    "span.absent = nil", "span.code != nil", "kind = server && span.absent = nil", "nil = span.absent",
    "span.nothing = nil", "span.blob != nil", "span.map != nil", "span.empty != nil", "!(span.absent = 1)",
    # Arrays: any element; `!=` only when none is equal.
    'span.tags = "a"', 'span.tags = "k1"', 'span.tags =~ "k."', 'span.tags != "zz"', 'span.tags !~ "z."',
    "span.mixed = 5", 'span.mixed = "a"', "span.mixed > 4", '"a" = span.tags', "span.mixed != 6",
    # Intrinsics in both spellings.
    "duration = 500ms", "duration > 0.4s", "span:duration >= 0.5s", "duration = 500000000", "traceDuration = 600ms",
    "trace:duration > duration", 'name = "POST /orders"', 'span:name =~ "POST.*"', "kind = server", "span:kind = server",
    "status = error", "span:status != ok", 'statusMessage = "card declined"', 'rootName = "POST /orders"',
    'trace:rootName = "POST /orders"', 'rootServiceName = "checkout"', 'trace:rootService = "checkout"',
    f'trace:id = "{TRACE}"', 'trace:id = "A01"', 'trace:id != "a02"', 'span:id = "1"', "span:parentID = nil",
    "span:childCount = 1", 'instrumentation:name = "shop.orders"', 'instrumentation:version = "0.9"',
    "nestedSetParent < 0", "nestedSetParent = -1", "nestedSetLeft = 1", "nestedSetRight = 4",
    # Events and links: any of them, each comparison on its own.
    'event:name = "exception"', 'event:name != "exception"', "event:timeSinceStart > 20ms", "event:timeSinceStart = 1ms",
    'event.exception.type = "ValueError"', "event.step = 1 && event.step = 2", "event.step > 1", "event.absent = nil",
    f'link:traceID = "{OTHER}"', 'link:traceID = "b002"', 'link:spanID = "cd"', 'link.reason =~ "re.*"',
    # Regular expressions match the whole text.
    'name =~ "POST /orders"', 'name !~ "POST"', 'span.lines !~ "one.*"', 'span.lines =~ "(?s)one.*"',
    'name =~ "(?i)post.*"', 'span.text =~ "[0-9]+"',
    # Arithmetic.
    "span.code + 1 = 501", "span.code * 2 - 1000 = 0", "span.code / 3 = 166", "-span.code = -500", "span.code % 7 = 3",
    "span.score * 2 = 1", "2 ^ 3 = 8", "duration / 2 = 250ms", "duration + 500ms = 1s", "traceDuration - duration = 100ms",
    "span.code = 400 + 100", "-7 / 2 = -3", "-7 % 2 = -1",
    # Left to right, without precedence of && over ||.
    "true || false && true", "span.absent = 1 || span.code = 500 && status = error", "true", "nil = nil", "true != false",
]  # fmt: skip
FALSE = [
    # Absent: every comparison is false, the negated ones too.
    'span.absent = "a"', 'span.absent != "a"', 'span.absent !~ "a"', 'span.absent =~ ".*"', "span.absent > 0",
    "span.absent", "!span.absent", "span.absent != nil", "span.code = nil", "nil != nil", "span.absent = span.absent",
    'event.absent != "a"', "span.absent + 1 = 1", "-span.absent < 1",
    # Types that do not match: false, never an error.
    'span.code = "500"', "span.text = 500", 'span.flag = "true"', "span.yes = true", "span.yes", "span.code", "!span.code",
    "span.flag = 1", 'span.code != "x"', "span.text != 1", 'span.code =~ "500"', 'span.code !~ "x"',
    'span.blob = "x"', 'span.map != "x"', "span.text > 1", "span.text + 1 = 501", "span.code = 1s && true",
    # Arrays.
    'span.tags != "a"', 'span.tags !~ "k."', "span.tags = 5", "span.tags != 5", 'span.empty != "a"', 'span.empty = "a"',
    # Words are no texts, and texts no words.
    "span.yes = ok", "span.text = server",
    # Regular expressions are anchored.
    'name =~ "POST"', 'name =~ "orders"', 'span.lines =~ "one.*"',
    # The rest.
    "span.nan = span.nan", "span.nan > 0", "span.code / 0 = 0", "span.code % 0 = 0", "0 ^ -1 = 0", "(0 - 8) ^ 0.5 = 0",
    "status = ok", "kind = client", "kind != server", "duration > 500ms", 'link:spanID = "ce"', "false",
    "true || true && false", "span.both = nil", "traceDuration < duration",
]  # fmt: skip


@pytest.mark.parametrize("text", TRUE)
def test_a_condition_that_is_true(text):
    """It holds for the span that has everything."""
    assert holds(text) is True


@pytest.mark.parametrize("text", FALSE)
def test_a_condition_that_is_false(text):
    """It does not hold for the same span, and raises nothing."""
    assert holds(text) is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nestedSetParent < 0", False),
        ("nestedSetParent = 1 && nestedSetLeft = 2 && nestedSetRight = 3", True),
        ('span:parentID = "1"', True),
        ("span:childCount = 0", True),
        ("status = ok && kind = client", True),
        ('rootServiceName = "checkout"', True),
        ("resource.service.name = nil", True),
        ('event:name != "x"', False),
        ("event:name = nil && link:traceID = nil && instrumentation:name = nil", True),
        ('statusMessage = ""', True),
    ],
)
def test_a_span_with_nothing_of_its_own(text, expected):
    """A child without attributes, resource, scope, events and links."""
    assert holds(text, CHILD_SPAN) is expected


def test_a_span_that_hangs_on_no_root_has_no_place_in_the_tree():
    """Its three numbers are 0, and the trace has no root to ask about."""
    trace = Trace(
        [
            span(2, parent=1),
            span(3, parent=2),
            span(5, parent=5),
            span(6, parent=7),
            span(7, parent=6),
        ]
    )
    numbers = "nestedSetParent = 0 && nestedSetLeft = 0 && nestedSetRight = 0"
    found = [
        holds(f"{numbers} && rootName = nil && rootServiceName = nil", one) for one in trace.spans
    ]
    assert found == [True] * 5
