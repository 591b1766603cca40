"""Log documents and LogQL trees for tests: the fixed data set, small records, any query."""

import itertools
import time
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

from collector.documents.build import documents, moment
from collector.model import Batch, Request, Signal
from collector.otlp.codec import new_message
from collector.query.logql import tree

GRAFANA = Path(__file__).parent / "golden" / "grafana"
START = 1_796_040_000 * 10**9
"""The first instant of the data set; it lasts twenty minutes."""
END = START + 1200 * 10**9
SECOND = 10**9


@cache
def log_batch():
    """The 177 log records of the data set as one batch."""
    wire = (GRAFANA / "logs.pb").read_bytes()
    message = new_message(Signal.LOGS)
    message.ParseFromString(wire)
    return Batch(Signal.LOGS, message, Request(START, b"k" * 16), wire)


@cache
def log_documents():
    """The 177 log records of the data set as documents."""
    return documents(log_batch())


def record(message, *, seconds=0, service="shop", **fields):
    """One log document, `seconds` after the start of the data set."""
    nano = START + int(seconds * SECOND)
    # Records of one instant are ordered by their id, so it has to be the same in every run.
    identity = f"{nano // SECOND:08x}{abs(hash_of(message)) % 16**16:016x}"
    return {
        "_id": identity, "time_unix_nano": nano, "timestamp": moment(nano), "service": service,
        "level": "INFO", "severity_number": 9, "message": message, **fields,
        "received_at": moment(time.time_ns() // 10**6 * 10**6),
    }  # fmt: skip


def hash_of(text):
    """A number for a text, the same in every process."""
    return sum((index + 1) * byte for index, byte in enumerate(text.encode()))


# --- any tree ---

NAMES = st.sampled_from(["a", "b_1", "rate", "json", "by", "_x", "le", "or1", "unwrap"])
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
EXPRESSIONS = st.sampled_from(["a+", "", "(?i)x|y", "\\d{2}", '[^"`]', ".*"])
NUMBERS = st.one_of(
    st.integers(-(10**9), 10**9).map(float),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)
DURATIONS = st.integers(1, 10**17)


@st.composite
def matchers(draw):
    """A matcher; its text is an expression where the operator takes one."""
    op = draw(st.sampled_from(["=", "!=", "=~", "!~"]))
    return tree.Matcher(draw(NAMES), op, draw(EXPRESSIONS if "~" in op else TEXTS))


@st.composite
def line_filters(draw):
    """A line filter with alternatives, addresses among them where they may stand."""
    op = draw(st.sampled_from(["|=", "!=", "|~", "!~", "|>", "!>"]))
    count = draw(st.integers(1, 3))
    kind = {"~": EXPRESSIONS, ">": st.sampled_from(["a <_> b", "<_>", "x", ""])}
    texts = [draw(kind.get(op[1], TEXTS)) for _ in range(count)]
    ips = [op in ("|=", "!=") and draw(st.booleans()) for _ in range(count)]
    texts = ["10.0.0.0/8" if ip else text for text, ip in zip(texts, ips, strict=True)]
    return tree.LineFilter(op, tuple(texts), tuple(ips))


@st.composite
def number_filters(draw):
    """A comparison with a number, a duration or a size."""
    op = draw(st.sampled_from(["==", "!=", ">", ">=", "<", "<="]))
    kind = draw(st.sampled_from(["number", "duration", "size"]))
    value = draw({"number": NUMBERS, "duration": DURATIONS, "size": st.integers(0, 10**12)}[kind])
    return tree.NumberFilter(draw(NAMES), op, value, kind)


LABEL_FILTERS = st.recursive(
    st.one_of(
        matchers(),
        number_filters(),
        st.builds(tree.IpFilter, NAMES, st.sampled_from(["=", "!="]), st.just("10.0.0.1-10.0.0.9")),
    ),
    lambda inner: st.builds(tree.Both, inner, inner) | st.builds(tree.Either, inner, inner),
    max_leaves=5,
)
FIELDS = st.lists(
    st.builds(tree.Extraction, NAMES, st.sampled_from(["a.b[0]", "x", 'c["d e"]'])), max_size=2
).map(tuple)
KEYS = st.lists(st.builds(tree.Extraction, NAMES, st.sampled_from(["x", "a.b"])), max_size=2)
FORMATS = st.lists(
    st.builds(tree.Format, NAMES, st.sampled_from(["b", "le"]), st.just(True))
    | st.builds(tree.Format, NAMES, st.sampled_from(["{{.a}}", 'x "y"']), st.just(False)),
    min_size=1, max_size=3, unique_by=lambda item: item.name,
).map(tuple)  # fmt: skip
ITEMS = st.lists(NAMES | matchers(), min_size=1, max_size=3).map(tuple)
STAGES = st.one_of(
    line_filters(),
    LABEL_FILTERS,
    st.builds(tree.Json, FIELDS),
    st.builds(tree.Logfmt, st.booleans(), st.booleans(), KEYS.map(tuple)),
    st.builds(tree.Regexp, st.sampled_from(["(?P<n>a+)", "x(?P<y>.)`"])),
    st.builds(tree.Pattern, st.sampled_from(["<a> <_>", '"<b>"'])),
    st.just(tree.Unpack()),
    st.just(tree.Decolorize()),
    st.builds(tree.LineFormat, st.sampled_from(["{{.a | upper}}", "`\n", "{{ __line__ }}"])),
    st.builds(tree.LabelFormat, FORMATS),
    st.builds(tree.Drop, ITEMS),
    st.builds(tree.Keep, ITEMS),
)


def _can_be_written(stages):
    """`| drop a != "x"` is one matcher: no text has `drop a` and that line filter behind it."""
    return not any(
        isinstance(one, tree.Drop | tree.Keep)
        and isinstance(one.items[-1], str)
        and isinstance(after, tree.LineFilter)
        and after.op in ("!=", "!~")
        for one, after in itertools.pairwise(stages)
    )


SELECTORS = st.lists(matchers(), max_size=2).map(lambda more: (tree.Matcher("a", "=", "x"), *more))
LOG_QUERIES = st.builds(
    tree.LogQuery, SELECTORS, st.lists(STAGES, max_size=4).map(tuple).filter(_can_be_written)
)
GROUPINGS = st.none() | st.builds(
    tree.Grouping, st.booleans(), st.lists(NAMES, max_size=2).map(tuple)
)
UNWRAPS = st.builds(
    tree.Unwrap, NAMES, st.sampled_from(["", "duration", "duration_seconds", "bytes"]),
    st.lists(LABEL_FILTERS, max_size=2).map(tuple),
)  # fmt: skip
OFFSETS = st.just(0) | DURATIONS | DURATIONS.map(lambda value: -value)
RANGES = st.one_of(
    st.builds(
        tree.RangeAggregation,
        st.sampled_from(["rate", "count_over_time", "bytes_rate", "absent_over_time"]),
        st.builds(tree.LogRange, LOG_QUERIES, DURATIONS, OFFSETS),
    ),
    st.builds(
        tree.RangeAggregation,
        st.sampled_from(["avg_over_time", "max_over_time", "first_over_time"]),
        st.builds(tree.LogRange, LOG_QUERIES, DURATIONS, OFFSETS, UNWRAPS),
        st.none(), GROUPINGS,
    ),
    st.builds(
        tree.RangeAggregation, st.just("quantile_over_time"),
        st.builds(tree.LogRange, LOG_QUERIES, DURATIONS, OFFSETS, UNWRAPS), NUMBERS, GROUPINGS,
    ),
)  # fmt: skip
MATCHINGS = st.none() | st.builds(
    tree.Matching, st.booleans(), st.lists(NAMES, max_size=2).map(tuple),
    st.sampled_from(["", "left", "right"]), st.just(()),
)  # fmt: skip


def _larger(inner):
    """Expressions around others."""
    series = inner.filter(lambda found: not isinstance(found, tree.Scalar))
    compare = st.sampled_from(["==", "!=", ">", ">=", "<", "<="])
    return st.one_of(
        st.builds(
            tree.VectorAggregation, st.sampled_from(["sum", "avg", "count", "stddev"]),
            inner, st.none(), GROUPINGS,
        ),
        st.builds(
            tree.VectorAggregation, st.sampled_from(["topk", "bottomk"]), inner,
            st.integers(1, 9), GROUPINGS,
        ),
        st.builds(tree.VectorAggregation, st.sampled_from(["sort", "sort_desc"]), inner),
        st.builds(tree.Binary, st.sampled_from(["+", "-", "*", "/", "%", "^"]), inner, inner),
        st.builds(tree.Binary, compare, inner, inner, st.booleans()),
        st.builds(
            tree.Binary, st.sampled_from(["+", "/", "^"]), RANGES, RANGES, st.just(False), MATCHINGS
        ),
        st.builds(tree.Binary, st.sampled_from(["and", "or", "unless"]), RANGES, series.map(_sum)),
        st.builds(tree.LabelReplace, inner, NAMES, TEXTS, TEXTS, EXPRESSIONS),
    )  # fmt: skip


def _sum(found):
    """The same as series, whatever it was."""
    return tree.VectorAggregation("sum", found)


METRICS = st.recursive(
    st.one_of(RANGES, st.builds(tree.Scalar, NUMBERS), st.builds(tree.Vector, NUMBERS)),
    _larger,
    max_leaves=5,
)
QUERIES = LOG_QUERIES | METRICS
