"""The connector servicegraph: which service calls which, how often, how long, how badly (O3)."""

import pytest

from collector.config import InvalidConfig
from tests.collector.connectors.parts import (
    CLIENT,
    CONSUMER,
    ERROR,
    INTERNAL,
    PRODUCER,
    SERVER,
    Connected,
    numbers,
    span,
    traces,
)

pytestmark = pytest.mark.anyio

SETTINGS = "metrics_flush_interval: 1h, latency_histogram_buckets: [10ms, 1s]"
GRAPH = "traces_service_graph_"
A, B, C, D = (bytes([each]) * 8 for each in range(1, 5))


async def made(tmp_path, *batches, **settings):
    """The metrics for some batches, without the durations unless asked for."""
    more = "".join(f", {key}: {text}" for key, text in settings.items())
    async with Connected(tmp_path, "servicegraph", f"{{{SETTINGS}{more}}}") as running:
        for each in batches:
            await running.send(each)
    return [each for batch in running.sink.batches for each in numbers(batch)]


def edge(client, server, kind="", *, failed=False, **more):
    return {
        "client": client,
        "server": server,
        "connection_type": kind,
        "failed": failed,
        **more,
    }


def totals(found):
    return [
        (name.removeprefix(GRAPH), labels, value)
        for name, labels, value in found
        if name.endswith("_total")
    ]


CALL = span(kind=CLIENT, ms=50, id=B, parent=A)
ANSWER = span(kind=SERVER, ms=20, id=C, parent=B)


@pytest.mark.parametrize("order", [1, -1])
async def test_a_client_and_a_server_span_are_an_edge(tmp_path, order):
    """Whichever comes first, in whatever batch: one request, with the times that both sides saw."""
    halves = [traces(CALL, service__name="shop"), traces(ANSWER, service__name="bank")]
    found = await made(tmp_path, *halves[::order])
    expected = edge("shop", "bank")
    assert found == [
        (f"{GRAPH}request_total", expected, 1),
        (f"{GRAPH}request_server_seconds", expected, (1, 0.02, [0, 1, 0])),
        (f"{GRAPH}request_client_seconds", expected, (1, 0.05, [0, 1, 0])),
    ]


async def test_an_error_on_either_side_is_a_failed_request(tmp_path):
    """Failed requests are counted once more, under `failed`."""
    bad = span(kind=CLIENT, id=B, status=ERROR)
    found = await made(
        tmp_path, traces(bad, service__name="shop"), traces(ANSWER, service__name="bank")
    )
    expected = edge("shop", "bank", failed=True)
    assert totals(found) == [
        ("request_total", expected, 1),
        ("request_failed_total", expected, 1),
    ]


async def test_messages_databases_and_users(tmp_path):
    """Producer to consumer; a client span that names a database; the root of a trace."""
    found = await made(
        tmp_path,
        traces(span(kind=PRODUCER, id=B, parent=A), service__name="shop"),
        traces(span(kind=CONSUMER, id=C, parent=B), service__name="mail"),
        traces(span(kind=CLIENT, id=D, attributes={"db.name": "orders"}), service__name="shop"),
        traces(span(kind=SERVER, id=A), service__name="shop"),
        traces(span(kind=INTERNAL), service__name="shop"),
    )
    assert totals(found) == [
        ("request_total", edge("shop", "mail", "messaging_system"), 1),
        ("request_total", edge("shop", "orders", "database"), 1),
        ("request_total", edge("user", "shop", "virtual_node"), 1),
    ]


async def test_halves_that_stay_alone(tmp_path):
    """A client span that names its peer is an edge; others are counted as unpaired."""
    peer = {"peer.service": "partner"}
    found = await made(
        tmp_path,
        traces(span(kind=CLIENT, id=B, attributes=peer), CALL, service__name="shop"),
        traces(span(kind=CLIENT, id=D, attributes=peer), service__name="shop"),
        traces(span(kind=SERVER, id=C, parent=A), service__name="bank"),
        virtual_node_extra_label="true",
    )
    labels = edge("shop", "partner", "virtual_node", virtual_node="server")
    assert totals(found) == [
        ("request_total", labels, 2),
        ("unpaired_spans_total", {"client": "shop"}, 1),
        ("unpaired_spans_total", {"server": "bank"}, 1),
    ]


async def test_halves_wait_only_so_long(tmp_path):
    """After `store.ttl` a half stands alone, while everything runs."""
    settings = (
        "{metrics_flush_interval: 20ms, store: {ttl: 10ms}, store_expiration_loop: 10ms, "
        "latency_histogram_buckets: [1s]}"
    )
    async with Connected(tmp_path, "servicegraph", settings) as running:
        await running.send(traces(CALL, service__name="shop"))
        await running.until(lambda: running.sink.batches)
        assert totals(numbers(running.sink.batches[0])) == [
            ("unpaired_spans_total", {"client": "shop"}, 1)
        ]


async def test_dimensions(tmp_path):
    """Attributes of each side become labels of the edge."""
    found = await made(
        tmp_path,
        traces(span(kind=CLIENT, id=B, attributes={"zone": "a"}), service__name="shop"),
        traces(ANSWER, service__name="bank", zone="b"),
        dimensions="[zone]",
    )
    assert totals(found) == [
        ("request_total", edge("shop", "bank", client_zone="a", server_zone="b"), 1)
    ]


async def test_b20_what_waits_is_bounded(tmp_path):
    """B20: halves beyond `store.max_items` are dropped and counted."""
    many = [span(kind=CLIENT, id=each.to_bytes(8, "big"), parent=A) for each in range(1, 6)]
    settings = f"{{{SETTINGS}, store: {{max_items: 2}}}}"
    async with Connected(tmp_path, "servicegraph", settings) as running:
        await running.send(traces(*many, service__name="shop"))
    assert totals(numbers(running.sink.batches[0])) == [
        ("unpaired_spans_total", {"client": "shop"}, 2),
        ("dropped_spans_total", {}, 3),
    ]
    name = 'otelier_connector_dropped_spans{connector="servicegraph"}'
    assert running.service.stats.snapshot()[name] == 3


async def test_a_request_that_comes_again_is_not_counted_again(tmp_path):
    """The same bytes count once."""
    halves = [traces(CALL, service__name="shop"), traces(ANSWER, service__name="bank")]
    assert totals(await made(tmp_path, *halves, *halves)) == [
        ("request_total", edge("shop", "bank"), 1)
    ]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("{latency_histogram_buckets: []}", "latency_histogram_buckets must be growing"),
        ("{store: {ttl: 0s}}", "store::ttl must be greater than 0"),
        ("{store: {max_items: 0}}", "must be positive"),
        ("{cache_loop: 0s}", "cache_loop must be greater than 0"),
    ],
)
def test_mistakes_in_the_configuration(tmp_path, settings, expected):
    """Each is found before anything starts."""
    with pytest.raises(InvalidConfig) as caught:
        Connected(tmp_path, "servicegraph", settings)
    assert expected in caught.value.report()


OTHER = b"o" * 16
SENT = traces(span(kind=PRODUCER, ms=1, id=A, parent=D), service__name="api")


def received(*links, parent=b"", kind=CONSUMER):
    """A span of a trace of its own that links to others."""
    made = span(kind=kind, ms=5, trace=OTHER, id=C, parent=parent, links=links)
    return traces(made, service__name="worker")


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("parent", [b"", B], ids=["root", "below a poll"])
async def test_a_consumer_that_links_to_its_producer(tmp_path, order, parent):
    """A link is as good as a parent: one edge, no user in front of it, nothing unpaired."""
    halves = [SENT, received((b"t" * 16, A), parent=parent)]
    found = await made(tmp_path, *halves[::order])
    assert totals(found) == [("request_total", edge("api", "worker", "messaging_system"), 1)]


@pytest.mark.parametrize("order", [1, -1])
async def test_a_consumer_of_several_messages(tmp_path, order):
    """Each producer that a batch links to is an edge; one that is named twice is one."""
    second = traces(span(kind=PRODUCER, ms=1, id=B, trace=OTHER, parent=D), service__name="cron")
    batch = received((b"t" * 16, A), (OTHER, B), (b"t" * 16, A), (b"n" * 16, D))
    found = await made(tmp_path, *[SENT, second, batch][::order])
    assert sorted(totals(found), key=str) == [
        ("request_total", edge("api", "worker", "messaging_system"), 1),
        ("request_total", edge("cron", "worker", "messaging_system"), 1),
    ]


async def test_links_that_lead_nowhere(tmp_path):
    """A root consumer stays a request of a user, once; a server's links are no messages."""
    nowhere = [(b"n" * 16, bytes([each]) * 8) for each in range(1, 50)]
    found = await made(tmp_path, received(*nowhere), SENT, received((b"t" * 16, A), kind=SERVER))
    assert sorted(totals(found), key=str) == [
        ("request_total", edge("user", "worker", "virtual_node"), 2),
        ("unpaired_spans_total", {"client": "api"}, 1),
    ]
