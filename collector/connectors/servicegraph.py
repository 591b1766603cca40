"""
The connector servicegraph: from spans to the edges between services.

A request from one service to another is a client span and, below it, a server span, often in
different batches; of a message it is a producer and a consumer, which may be in a trace of its own
that links to the producer. The first of the two waits for the other for a short time; together they
are one edge. A span that stays alone still shows an edge when it names its peer (`peer.service`, a
database), or when it is the root of a trace: then the client is "user". Names and labels are those
of the OpenTelemetry Collector and of Grafana Tempo, so Grafana's service graph works.

What waits is bounded in number and time. A request that comes again is not counted again.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

import msgspec

from collector.connectors.shared.flush import Flushing
from collector.connectors.shared.series import BUCKETS, CUMULATIVE, Key, Table, attributes_of
from collector.model import Batch, Consume, Duration, Host, Signal
from collector.otlp import new_message
from collector.pipeline.deduplication import Repeats

SCOPE: Final = "traces_service_graph"
SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
ERROR: Final = 2
MOST_LINKS: Final = 32
"""Links of one consumer that are looked at."""
NAMES: Final = {
    "total": "traces_service_graph_request_total",
    "failed": "traces_service_graph_request_failed_total",
    "server": "traces_service_graph_request_server_seconds",
    "client": "traces_service_graph_request_client_seconds",
    "unpaired": "traces_service_graph_unpaired_spans_total",
    "dropped": "traces_service_graph_dropped_spans_total",
}

Ids = tuple[str, bytes, bytes]
"""Tenant, trace id and span id of the span in front."""


class Store(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Spans that wait for their other half."""

    ttl: Duration = Duration(2)
    """How long they wait."""
    max_items: int = 1000
    """How many may wait; further ones are counted as dropped."""


@dataclass(slots=True)
class Half:
    """A span that waits for its other half."""

    service: str
    seconds: float
    failed: bool
    until: float
    client: bool
    root: bool = False
    paired: bool = False
    peer: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Graph:
    """The metrics of one tenant."""

    tables: dict[str, Table]


class ServiceGraph:
    """Counts requests between services."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the servicegraph connector."""

        latency_histogram_buckets: tuple[Duration, ...] = BUCKETS
        """Upper bounds of the durations, growing."""
        dimensions: tuple[str, ...] = ()
        """Attributes of spans or resources that become `client_<name>` and `server_<name>`."""
        store: Store = Store()
        """Spans that wait for their other half."""
        cache_loop: Duration = Duration(60)
        """How often series are looked through that no edge needs any more."""
        metrics_expiration: Duration = Duration(0)
        """Series without a request for so long are forgotten; 0 = never."""
        store_expiration_loop: Duration = Duration(2)
        """How often spans are looked through that have waited long enough."""
        virtual_node_peer_attributes: tuple[str, ...] = ("peer.service", "db.name", "db.system")
        """What names the server when only the client sends spans; the first one found counts."""
        virtual_node_extra_label: bool = False
        """Add the label `virtual_node`: `client` or `server`, the side that sent no span."""
        database_name_attributes: tuple[str, ...] = ("db.name",)
        """A client span with one of these is a whole edge, to that database."""
        metrics_flush_interval: Duration = Duration(60)
        """How often metrics are handed on."""
        aggregation_cardinality_limit: int = 10_000
        """Series that each metric may have; further ones are counted together."""

        def check(self) -> Iterator[str]:
            """What the types cannot say."""
            bounds = self.latency_histogram_buckets
            if not bounds or list(bounds) != sorted(set(bounds)) or bounds[0] <= 0:
                yield "latency_histogram_buckets must be growing durations above 0"
            for name in ("cache_loop", "store_expiration_loop", "metrics_flush_interval"):
                if getattr(self, name) <= 0:
                    yield f"{name} must be greater than 0"
            if self.metrics_expiration < 0:
                yield "metrics_expiration must not be negative"
            if self.store.ttl <= 0:
                yield "store::ttl must be greater than 0"
            if self.store.max_items <= 0 or self.aggregation_cardinality_limit <= 0:
                yield "store::max_items and aggregation_cardinality_limit must be positive"

    connects: ClassVar = frozenset({(Signal.TRACES, Signal.METRICS)})

    def __init__(
        self,
        config: Config,
        host: Host,
        next: Mapping[Signal, Consume],  # noqa: A002 - the word of the protocol
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.host = host
        self._clock = clock
        self._repeats = Repeats()
        self._waiting: OrderedDict[Ids, Half] = OrderedDict()
        self._graphs: dict[str, Graph] = {}
        self._flushing = Flushing(host, next, config.metrics_flush_interval, self.messages)
        self._expiring: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to flush."""
        self._flushing.start()
        self._expiring = asyncio.create_task(self._expire_forever())
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Flush for the last time; halves that still wait stand alone."""
        if self._expiring is not None:
            self._expiring.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._expiring
        self.expire(float("inf"))
        await self._flushing.stop()

    async def __call__(self, batch: Batch) -> None:
        """Find the edges that a batch completes."""
        if self._repeats.known(batch):
            return
        tenant = batch.request.tenant
        for group in batch.message.resource_spans:
            resource = attributes_of(group.resource)
            service = str(resource.get("service.name", "") or "unknown_service")
            for scope in group.scope_spans:
                for span in scope.spans:
                    if SERVER <= span.kind <= CONSUMER:
                        self._take(tenant, service, resource, span)
        self._repeats.add(batch)

    def _take(self, tenant: str, service: str, resource: dict[str, Any], span: Any) -> None:
        own = attributes_of(span)
        client = span.kind in (CLIENT, PRODUCER)
        nanos = max(0, span.end_time_unix_nano - span.start_time_unix_nano)
        half = Half(
            service,
            nanos / 1e9,
            span.status.code == ERROR,
            self._clock() + self.config.store.ttl,
            client,
        )
        side = "client" if client else "server"
        for name in self.config.dimensions:
            value = own.get(name, resource.get(name))
            if value is not None:
                half.extra[f"{side}_{name}"] = value
        if span.kind == CLIENT:
            database = first(self.config.database_name_attributes, own)
            if database:
                self._edge(tenant, half, other(half, database), "database")
                return
            half.peer = first(self.config.virtual_node_peer_attributes, own)
        half.root = not client and not span.parent_span_id
        keys = [(tenant, *ids) for ids in self._ids(span, client=client)]
        if keys:
            self._pair(keys, half, messaging=span.kind in (PRODUCER, CONSUMER))
        else:  # a root has no other half
            self._alone(tenant, half)

    def _ids(self, span: Any, *, client: bool) -> Iterator[tuple[bytes, bytes]]:
        """
        Where the other half may be: below a client, above a server.

        A consumer is often the root of a trace of its own, and names what was sent in its links.
        """
        if client:
            yield span.trace_id, span.span_id
            return
        found = dict.fromkeys([(span.trace_id, span.parent_span_id)] if span.parent_span_id else ())
        if span.kind == CONSUMER:
            for link in span.links[:MOST_LINKS]:
                found[link.trace_id, link.span_id] = None
        yield from found

    def _pair(self, keys: list[Ids], half: Half, *, messaging: bool) -> None:
        """Make an edge with each other half that waits; wait for those that do not."""
        tenant = keys[0][0]
        missing = []
        for key in keys:
            found = self._waiting.get(key)
            if found is None:
                missing.append(key)
            elif found.client != half.client:
                del self._waiting[key]
                found.paired = half.paired = True
                pair = (half, found) if half.client else (found, half)
                self._edge(tenant, *pair, "messaging_system" if messaging else "")
        room = max(0, self.config.store.max_items - len(self._waiting))
        for key in missing[:room]:
            self._waiting[key] = half
        if half.paired or missing[:room]:
            return
        if missing:
            self._graph(tenant).tables["dropped"].add((), time.time_ns())
            self.host.stats.add("otelier_connector_dropped_spans", connector=self.host.id)
        else:  # a second server span below one client span: an edge from the same client
            self._alone(tenant, half)

    def expire(self, now: float) -> None:
        """Halves that have waited long enough stand alone."""
        while self._waiting:
            key = next(iter(self._waiting))
            if self._waiting[key].until > now:
                return
            half = self._waiting.pop(key)
            if not half.paired:
                half.paired = True  # it may wait under further keys
                self._alone(key[0], half)

    def _alone(self, tenant: str, half: Half) -> None:
        """An edge to a node that sends no spans, if its name is known."""
        if half.client and half.peer:
            self._edge(tenant, half, other(half, half.peer), "virtual_node", "server")
        elif not half.client and half.root:
            self._edge(tenant, other(half, "user"), half, "virtual_node", "client")
        else:
            name = "client" if half.client else "server"
            self._graph(tenant).tables["unpaired"].add(((name, half.service),), time.time_ns())

    def _edge(self, tenant: str, client: Half, server: Half, kind: str, virtual: str = "") -> None:
        failed = client.failed or server.failed
        pairs: list[tuple[str, Any]] = [
            ("client", client.service),
            ("server", server.service),
            ("connection_type", kind),
            ("failed", failed),
        ]
        if virtual and self.config.virtual_node_extra_label:
            pairs.append(("virtual_node", virtual))
        key: Key = (*pairs, *client.extra.items(), *server.extra.items())
        tables, now = self._graph(tenant).tables, time.time_ns()
        tables["total"].add(key, now)
        if failed:
            tables["failed"].add(key, now)
        tables["server"].add(key, now, server.seconds)
        tables["client"].add(key, now, client.seconds)

    def _graph(self, tenant: str) -> Graph:
        graph = self._graphs.get(tenant)
        if graph is None:
            bounds = tuple(float(each) for each in self.config.latency_histogram_buckets)
            limit = self.config.aggregation_cardinality_limit
            graph = self._graphs[tenant] = Graph(
                {
                    name: Table(bounds if name in ("server", "client") else None, limit)
                    for name in NAMES
                }
            )
        return graph

    def messages(self, now: int) -> Iterator[tuple[str, Any]]:
        """All series as of now, one message for each tenant."""
        for tenant, graph in self._graphs.items():
            message = new_message(Signal.METRICS)
            scope = message.resource_metrics.add().scope_metrics.add()
            scope.scope.name = SCOPE
            for name, table in graph.tables.items():
                if table.overflowed:
                    self.host.stats.add(
                        "otelier_connector_overflow", table.overflowed, connector=self.host.id
                    )
                    table.overflowed = 0
                if table.series:
                    unit = "" if table.bounds is None else "s"
                    metric = scope.metrics.add(name=NAMES[name], unit=unit)
                    table.write(metric, now, CUMULATIVE)
            if scope.metrics:
                yield tenant, message

    async def _expire_forever(self) -> None:
        forgotten_at = self._clock()
        while True:
            await asyncio.sleep(self.config.store_expiration_loop)
            now = self._clock()
            self.expire(now)
            if self.config.metrics_expiration and now - forgotten_at >= self.config.cache_loop:
                forgotten_at = now
                before = time.time_ns() - int(self.config.metrics_expiration * 1e9)
                for graph in self._graphs.values():
                    for table in graph.tables.values():
                        table.expire(before)


def other(half: Half, service: str) -> Half:
    """The half that no service sent, as the one that is known saw it."""
    return Half(service, half.seconds, half.failed, 0.0, not half.client)


def first(names: tuple[str, ...], attributes: dict[str, Any]) -> str:
    """The first of these attributes that there is, as text; empty for none."""
    return next((str(attributes[name]) for name in names if attributes.get(name)), "")
