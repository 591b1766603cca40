"""The questions themselves, over the embedded store and over a store in memory."""

import logging

import msgspec
import pytest

from collector.model import Host, Signal
from collector.query.ids import forms
from collector.query.trace import Answer, Limits, trace
from collector.stats import Stats
from collector.stores.base import dumps
from collector.stores.sqlite.store import SQLite
from tests.traces import FIRST, LOGS, SECOND, SPANS, Remembering, at, log, span

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path):
    host = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
    async with SQLite(SQLite.Config(path=str(tmp_path / "t.db")), host) as opened:
        await opened.write(Signal.TRACES, SPANS)
        await opened.write(Signal.LOGS, LOGS)
        yield opened


def tree(answer):
    return [
        [
            (row.depth, row.orphan, row.span["name"], [each["message"] for each in row.logs])
            for row in one.rows
        ]
        for one in answer.traces
    ]


FIRST_TREE = [
    (0, False, "POST /orders", ["order received"]),
    (1, False, "validate", []),
    (1, False, "send open_order", []),
    (2, False, "run/open_order", [LOGS[1]["message"]]),
    (3, False, SPANS[4]["name"], []),
    (0, True, "late", []),
]


async def test_one_id_leads_to_every_trace_it_occurs_in(store):
    """A correlation id gives both traces whole, with logs under their spans, and the log without a trace (D1, O4)."""
    answer = await trace(store, "corr-1")
    assert tree(answer) == [FIRST_TREE, [(0, False, "run/open_order", ["order opened"])]]
    assert [each["message"] for each in answer.traces[0].logs] == ["nobody's child"]
    assert [each["message"] for each in answer.logs] == ["nightly report"]
    assert answer.cut == []
    first = answer.traces[0]
    assert (first.trace_id, first.start_unix_nano, first.duration_ms) == (FIRST, at(0), 245.0)
    assert (first.span_count, first.error_count, first.log_count) == (6, 2, 3)
    assert first.services == ["shop-api", "worker-open", "worker-close"]
    assert first.context == {
        "correlation_id": ["corr-1"],
        "request_id": ["req-1"],
        "task_id": ["task-1"],
        "order_id": ["order-42"],
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (FIRST, [FIRST]),
        (FIRST.upper(), [FIRST]),
        (f" {FIRST}\n", [FIRST]),
        ("0af76519-16cd-43dd-8448-eb211c80319c", [FIRST]),
        (f"00-{FIRST}-{'a' * 16}-01", [FIRST]),
        ("req-1", [FIRST]),
        ("task-1", [FIRST]),
        ("task-2", [SECOND]),
        ("order-42", [FIRST, SECOND]),
    ],
)
async def test_every_spelling_and_kind_of_id(store, text, found):
    """Trace ids in any usual spelling and the ids of LOOKUP lead to whole traces (D4)."""
    answer = await trace(store, text)
    assert [one.trace_id for one in answer.traces] == found
    assert [one.span_count for one in answer.traces] == [6 if one == FIRST else 1 for one in found]


async def test_a_uuid_may_be_a_trace_id_and_a_correlation_id():
    """A UUID is looked for as it is and as a trace id; both finds are shown."""
    uuid = "0af76519-16cd-43dd-8448-eb211c80319c"
    store = Remembering(
        [
            span(FIRST, "a", "by trace id", 0, 1),
            span(SECOND, "a", "by correlation id", 5, 6, context={"correlation_id": uuid}),
        ]
    )
    answer = await trace(store, uuid)
    assert [row.span["name"] for one in answer.traces for row in one.rows] == [
        "by trace id",
        "by correlation id",
    ]
    assert forms(uuid) == [uuid, FIRST]


async def test_an_unknown_id_says_what_was_searched(store):
    """Nothing found: the store, the forms, the kinds of ids, and the times that the store holds."""
    answer = await trace(store, "nope")
    assert not answer.found
    assert msgspec.to_builtins(answer.searched) == {
        "store": store.describe(),
        "ids": ["nope"],
        "kinds": [
            "trace_id",
            "correlation_id",
            "request_id",
            "task_id",
            "order_id",
            "batch_run_id",
        ],
        "spans": {"oldest_unix_nano": at(0), "newest_unix_nano": at(5000)},
        "logs": {"oldest_unix_nano": at(1), "newest_unix_nano": at(8000)},
    }


async def test_operators_are_text(store):
    """An id that looks like an operator or like SQL is an id that does not exist (B47, B50)."""
    for text in ('{"$ne": null}', "' OR '1'='1", "$where", "%", "*"):
        assert not (await trace(store, text)).found


async def test_cycles_and_self_parents_end():
    """Spans that are each other's parents are all shown, each once, the earliest as a root."""
    store = Remembering(
        [
            span(FIRST, "a", "first", 1, 2, parent="b"),
            span(FIRST, "b", "second", 2, 3, parent="a"),
            span(FIRST, "c", "own parent", 3, 4, parent="c"),
            span(FIRST, "d", "below the cycle", 4, 5, parent="b"),
        ]
    )
    assert tree(await trace(store, FIRST)) == [
        [
            (0, True, "own parent", []),
            (0, True, "first", []),
            (1, False, "second", []),
            (2, False, "below the cycle", []),
        ]
    ]


async def test_error_type_is_an_error():
    """A span that names its error counts, whether or not its status says so; once."""
    spans = [span(FIRST, each, each, 0, 1) for each in ("a", "b", "c")]
    spans[0]["status"] = "ERROR"
    spans[1] |= {"attributes": {"error.type": "TimeoutError"}}
    answer = await trace(Remembering(spans), FIRST)
    assert answer.traces[0].error_count == 2


async def test_a_child_may_begin_before_its_parent():
    """Skewed clocks change neither the tree nor its completeness; the trace begins at the earliest."""
    store = Remembering(
        [span(FIRST, "a", "parent", 0, 10), span(FIRST, "b", "child", -5, 3, parent="a")]
    )
    answer = await trace(store, FIRST)
    assert tree(answer) == [[(0, False, "parent", []), (1, False, "child", [])]]
    assert (answer.traces[0].start_unix_nano, answer.traces[0].duration_ms) == (at(-5), 15.0)


async def test_a_chain_of_ten_thousand_spans():
    """Depth is data, not recursion: a very deep trace is laid out and encoded."""
    chain = [
        {
            **span(FIRST, "a", str(depth), depth, depth + 1),
            "_id": f"{depth:024x}",
            "span_id": f"{depth + 1:016x}",
            "parent_span_id": f"{depth:016x}",
        }
        for depth in range(9_000)
    ]
    answer = await trace(Remembering(chain), FIRST)
    assert [row.depth for row in answer.traces[0].rows] == list(range(9_000))
    assert len(dumps(answer)) > 1_000_000


async def test_limits_cut_and_say_so():
    """Traces, spans and logs over the limits are left out, the earliest stay, and it is said."""
    spans = [
        {
            **span(
                f"{number:032x}",
                "a",
                "s",
                number,
                number + 1,
                context=dict.fromkeys(["order_id"], "o"),
            ),
            "_id": f"{number:024x}",
        }
        for number in range(1, 8)
    ]
    records = [log(number, number, "INFO", "m", context={"order_id": "o"}) for number in range(6)]
    answer = await trace(Remembering(spans, records), "o", Limits(traces=3, spans=5, logs=4))
    assert [one.trace_id for one in answer.traces] == [f"{number:032x}" for number in (1, 2, 3)]
    assert [each["time_unix_nano"] for each in answer.logs] == [at(0), at(1), at(2), at(3)]
    assert answer.cut == [
        "the id occurs in more than 3 traces; the first are shown",
        "more than 5 spans; the earliest are shown",
        "more than 4 log records; the earliest are shown",
    ]


async def test_logs_alone_make_a_trace():
    """A trace whose spans were never stored is still found by its logs."""
    records = [log(number, number * 10, "INFO", "m", within=(FIRST, "a")) for number in range(3)]
    answer = await trace(Remembering((), records), FIRST)
    (one,) = answer.traces
    assert (one.rows, one.logs, one.start_unix_nano, one.duration_ms) == ([], records, at(0), 20.0)


async def test_answers_survive_their_json(store):
    """What is sent is what was found: decoding the JSON gives an equal answer in plain JSON values."""
    answer = await trace(store, "corr-1")
    body = dumps(answer)
    decoded = msgspec.json.decode(body, type=Answer)
    assert dumps(decoded) == body
    assert decoded.traces[0].rows[0].span["start_unix_nano"] == at(0)
