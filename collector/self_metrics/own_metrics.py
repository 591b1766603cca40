"""
The collector's own metrics at `http://localhost:8888/metrics`, for Prometheus.

    service::telemetry::metrics::readers: [{pull: {exporter: {prometheus: {host, port}}}}]

Names are the OpenTelemetry Collector's, so dashboards and alerts written for it work; what it lacks
begins with `otelier_`. The numbers are those of `stats.py`, plus a few of the process.

A reader that the configuration names must be able to listen, or the collector does not start. The
one that is there without a setting is a courtesy: when its port is in use (a second
collector on the machine), the log says so and everything else goes on.
"""

import contextlib
import logging
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from collector.config import PrometheusReader, Reader, ServiceTelemetry
from collector.errors import StartFailed
from collector.http.server import is_local, serving
from collector.http.visitors import NoVisitors
from collector.self_metrics.exposition import Family, Page, Sample, label_of, name_of, number
from collector.stats import BOUNDS, Number, Stats

DEFAULT: Final = PrometheusReader(
    without_scope_info=True, without_units=True, without_type_suffix=True
)
"""What the OpenTelemetry Collector has when nothing is configured: bare names on localhost:8888."""
UNITS: Final = {"otelcol_process_uptime": "seconds", "otelcol_process_memory_rss": "bytes"}
"""Units that are no part of a name; the others stand in theirs."""
HELP: Final = {
    "otelcol_receiver_accepted": "Items that were taken: stored, or in a queue that keeps them.",
    "otelcol_receiver_refused": "Items that were not taken; the client was told so.",
    "otelcol_exporter_sent": "Items that the exporter delivered.",
    "otelcol_exporter_send_failed": "Items that were given up: dead letters, or dropped.",
    "otelcol_exporter_enqueue_failed": "Items that a full queue in memory refused.",
    "otelcol_exporter_queue_size": "What waits for the exporter.",
    "otelcol_exporter_queue_capacity": "How much may wait for the exporter.",
    "otelcol_process_uptime": "Seconds since the start.",
    "otelcol_process_cpu_seconds": "Seconds of processor time.",
    "otelcol_process_memory_rss": "Memory in use, in bytes.",
    "otelier_exporter_lag_items": "Items that wait for the exporter.",
    "otelier_exporter_oldest_unsent_seconds": "Age of the oldest item that is not delivered.",
    "otelier_exporter_dropped_items": "Items that were lost from a queue in memory, by reason.",
    "otelier_exporter_dead_letters": "Items that were put aside, by reason.",
    "otelier_exporter_rejected_items": "Items that the other side took no part in, and said so.",
    "otelier_processor_dropped_items": "Items that a processor dropped on purpose, by reason.",
    "otelier_receiver_rejected_items": "Items that were refused alone, by reason.",
    "otelier_receiver_repaired": "Things that were repaired in requests, by kind.",
    "otelier_wal_commit_seconds": "Time of a group commit: the write and its fsync.",
    "otelier_wal_deduplicated_items": "Items that came again and were not stored again.",
}
PAGE: Final = os.sysconf("SC_PAGE_SIZE")

log = logging.getLogger("collector.service")


class OwnMetrics:
    """
    Shows the numbers of a collector.

    Args:
        stats: the numbers.
        always: whether to show them on localhost:8888 when the configuration says nothing.
    """

    def __init__(self, stats: Stats, *, always: bool = False) -> None:
        self.endpoints: dict[str, str] = {}
        """Where the metrics are, with real ports, by what the configuration says."""
        self._stats = stats
        self._always = always
        self._began = time.monotonic()
        self._stacks: dict[PrometheusReader, contextlib.AsyncExitStack] = {}

    async def apply(self, telemetry: ServiceTelemetry) -> None:
        """
        Show them where a configuration says, and nowhere else.

        Raises:
            StartFailed: an address cannot be bound; what was there before is still there.
        """
        metrics = telemetry.metrics
        wanted: dict[PrometheusReader, bool] = {}
        if metrics.level != "none":
            if metrics.readers is not None:
                wanted = dict.fromkeys(pulls(metrics.readers), True)
            elif self._always:
                wanted[DEFAULT] = False
        started = []
        try:
            for reader, must in wanted.items():
                if reader not in self._stacks and await self._start(reader, must=must):
                    started.append(reader)
        except StartFailed:
            for reader in started:
                await self._stop(reader)
            raise
        for reader in [reader for reader in self._stacks if reader not in wanted]:
            await self._stop(reader)

    async def close(self) -> None:
        """Show nothing any more."""
        for reader in list(self._stacks):
            await self._stop(reader)

    async def _start(self, reader: PrometheusReader, *, must: bool) -> bool:
        endpoint = f"{reader.host}:{reader.port}"
        stack = contextlib.AsyncExitStack()
        page = NoVisitors(Page(lambda: self.families(reader)), endpoint)
        try:
            address = await stack.enter_async_context(serving(page, endpoint, grace_s=1))
        except StartFailed as error:
            if must:
                raise StartFailed(f"service::telemetry::metrics: {error}") from error
            log.warning(
                "no own metrics: %s; `--set service.telemetry.metrics.level=none` switches them off",
                error,
            )
            return False
        self._stacks[reader] = stack
        self.endpoints[endpoint] = address
        log.info("service::telemetry::metrics: http %s", address)
        if not is_local(endpoint):
            log.warning(
                "own metrics at %s can be read from other machines, without a credential", endpoint
            )
        return True

    async def _stop(self, reader: PrometheusReader) -> None:
        self.endpoints.pop(f"{reader.host}:{reader.port}", None)
        await self._stacks.pop(reader).aclose()

    def families(self, reader: PrometheusReader = DEFAULT) -> Iterator[Family]:
        """All numbers as of now, with the names that a reader asks for."""
        numbers = [*self._stats.numbers(), *self._of_process()]
        for (name, kind), found in groupby(numbers, lambda each: (each.name, each.kind)):
            shown = name_of(name)
            if not reader.without_units and name in UNITS:
                shown += f"_{UNITS[name]}"
            if kind == "counter" and not reader.without_type_suffix:
                shown = f"{shown.removesuffix('_total')}_total"
            about = next((text for start, text in HELP.items() if name.startswith(start)), "")
            family = Family(shown, "histogram" if kind == "times" else kind, about)
            for each in found:
                family.samples += samples(each)
            yield family

    def _of_process(self) -> Iterator[Number]:
        rss, whole = memory()
        yield Number("otelcol_process_cpu_seconds", (), "counter", time.process_time())
        yield Number("otelcol_process_memory_rss", (), "gauge", rss)
        yield Number("otelcol_process_runtime_total_sys_memory_bytes", (), "gauge", whole)
        yield Number("otelcol_process_uptime", (), "counter", time.monotonic() - self._began)


def pulls(readers: Sequence[Reader]) -> Iterator[PrometheusReader]:
    """The readers that Prometheus fetches from; the others are named in the log."""
    for place, reader in enumerate(readers):
        if reader.pull is not None and reader.pull.exporter.prometheus is not None:
            yield reader.pull.exporter.prometheus
        else:
            log.warning(
                "service::telemetry::metrics::readers[%d] has no effect: only pull readers for "
                "prometheus have one",
                place,
            )


def samples(found: Number) -> Iterator[Sample]:
    """The lines of one number."""
    labels = tuple((label_of(key), text) for key, text in found.attributes)
    if found.times is None:
        yield Sample(labels, found.value)
        return
    below = 0
    for bound, count in zip(BOUNDS, found.times.counts, strict=False):
        below += count
        yield Sample((*labels, ("le", number(bound))), below, "_bucket")
    total = sum(found.times.counts)
    yield Sample((*labels, ("le", "+Inf")), total, "_bucket")
    yield Sample(labels, found.times.total, "_sum")
    yield Sample(labels, total, "_count")


def memory() -> tuple[int, int]:
    """Bytes in use and bytes reserved by this process."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        whole, resident = Path("/proc/self/statm").read_text().split()[:2]
        return int(resident) * PAGE, int(whole) * PAGE
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    return peak, peak
