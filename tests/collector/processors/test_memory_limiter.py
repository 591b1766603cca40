"""The memory limiter: limits, cgroups, refusing and taking again with real memory."""

import asyncio
import mmap

import pytest

from collector.config import InvalidConfig
from collector.errors import Permanent, Retryable
from collector.model import Duration
from collector.processors.memory_limiter import (
    MIB,
    MemoryLimiter,
    available,
    cgroup_limits,
    limits,
    resident,
)
from tests.collector.processors.parts import (
    SINK,
    SOURCE,
    Sink,
    host,
    logs,
    plain,
    service,
    span,
    through,
    traces,
)

pytestmark = pytest.mark.anyio

REFUSED = "data refused due to high memory usage"


def config(**more):
    return MemoryLimiter.Config(**{"check_interval": Duration(0.01), **more})


async def test_below_the_limit_everything_passes(tmp_path):
    """With enough memory the batches of all signals go on as they are."""
    yaml = {"memory_limiter": {"check_interval": "1s", "limit_mib": 1 << 20}}
    seen, counters = await through(tmp_path, yaml, traces(span("a")), logs({"body": "b"}))
    assert seen == [plain(traces(span("a"))), plain(logs({"body": "b"}))]
    assert counters == {
        'otelcol_processor_accepted_log_records{processor="memory_limiter"}': 1,
        'otelcol_processor_accepted_spans{processor="memory_limiter"}': 1,
        'otelcol_processor_incoming_items{otel_signal="logs",processor="memory_limiter"}': 1,
        'otelcol_processor_incoming_items{otel_signal="traces",processor="memory_limiter"}': 1,
        'otelcol_processor_outgoing_items{otel_signal="logs",processor="memory_limiter"}': 1,
        'otelcol_processor_outgoing_items{otel_signal="traces",processor="memory_limiter"}': 1,
    }


async def test_above_the_limit_senders_must_keep_their_data(tmp_path):
    """From the first request on, a process that is too large refuses, with a delay, and counts."""
    yaml = {"memory_limiter": {"check_interval": "2s", "limit_mib": 2}}
    async with service(tmp_path, yaml) as running:
        with pytest.raises(Retryable, match=REFUSED) as caught:
            await running.component(SOURCE).next["logs"](logs({"body": "a"}, {"body": "b"}))
        assert running.component(SINK).batches == []
    assert caught.value.delay_s == 2.0
    name = 'otelcol_processor_refused_log_records{processor="memory_limiter"}'
    assert running.stats.snapshot()[name] == 2


async def test_it_opens_again_when_memory_is_free():
    """Memory that is really used closes the limiter, and giving it back opens it again."""
    soft = resident() // MIB + 96
    sink = Sink()
    given = MemoryLimiter(config(limit_mib=soft + 4, spike_limit_mib=4), host(), sink)

    async def until(refusing):
        async with asyncio.timeout(60):
            while given.refusing is not refusing:  # noqa: ASYNC110 - it measures, it has no event
                await asyncio.sleep(0.01)

    async with given:
        assert given.soft_limit == soft * MIB
        await given(logs({"body": "before"}))
        with mmap.mmap(-1, 256 * MIB) as ballast:
            for start in range(0, 256 * MIB, 4096):
                ballast[start] = 1
            await until(refusing=True)
            with pytest.raises(Retryable, match=REFUSED):
                await given(logs({"body": "during"}))
        await until(refusing=False)
        await given(logs({"body": "after"}))
    assert sink.seen == [plain(logs({"body": text})) for text in ("before", "after")]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"limit_mib": 100}, (100 * MIB, 20 * MIB)),
        ({"limit_mib": 100, "spike_limit_mib": 30}, (100 * MIB, 30 * MIB)),
        ({"limit_mib": 100, "limit_percentage": 10}, (100 * MIB, 20 * MIB)),
        ({"limit_percentage": 50}, (500 * MIB, 100 * MIB)),
        ({"limit_percentage": 50, "spike_limit_percentage": 20}, (500 * MIB, 200 * MIB)),
    ],
)
def test_limits(more, expected):
    """MiB win over percentages; the spike is a fifth of the limit unless it is given."""
    assert limits(config(**more), 1000 * MIB) == expected


def machine(tmp_path, cgroups, files):
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:        1024000 kB\nMemFree: 1 kB\n")
    (proc / "self" / "cgroup").write_text(cgroups)
    for name, text in files.items():
        path = cgroup / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc, cgroup


@pytest.mark.parametrize(
    ("cgroups", "files", "expected"),
    [
        ("0::/\n", {}, []),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "500\n"}, [500]),
        ("0::/a/b\n", {"a/b/memory.max": "300\n", "a/memory.max": "500\n"}, [300, 500]),
        ("0::/host/path\n", {"memory.max": "700\n"}, [700]),
        ("5:cpu,memory:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": "900\n"}, [900]),
    ],
)
def test_cgroups(tmp_path, cgroups, files, expected):
    """Limits of both versions of control groups count, those of parents as well."""
    proc, cgroup = machine(tmp_path, cgroups, files)
    assert cgroup_limits(proc, cgroup) == expected
    assert available(proc, cgroup) == min([1024000 * 1024, *expected])


def test_this_machine_can_be_measured():
    """Real memory lies between a megabyte and what there is."""
    assert MIB < resident() < available()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (
            {"check_interval": Duration(0), "limit_mib": 1},
            "'check_interval' must be greater than zero",
        ),
        ({}, "'limit_mib' or 'limit_percentage' must be greater than zero"),
        (
            {"limit_mib": 5, "spike_limit_mib": 5},
            "'spike_limit_mib' must be smaller than 'limit_mib'",
        ),
        (
            {"limit_percentage": 101},
            (
                "'limit_percentage' and 'spike_limit_percentage' must be greater than zero and "
                "less than or equal to hundred"
            ),
        ),
        (
            {"limit_percentage": 5, "spike_limit_percentage": 5},
            "'spike_limit_percentage' must be smaller than 'limit_percentage'",
        ),
        (
            {"limit_mib": 5, "min_gc_interval_when_soft_limited": Duration(60)},
            (
                "'max_gc_interval_when_soft_limited' must not be smaller than "
                "'min_gc_interval_when_soft_limited', and that not negative"
            ),
        ),
    ],
)
def test_wrong_settings_are_refused(more, text):
    """The texts are the OpenTelemetry Collector's."""
    assert MemoryLimiter.check(config(**more)) == [text]


def test_wrong_settings_in_yaml(tmp_path):
    """The section without a key is no limiter: both things that are missing are named."""
    with pytest.raises(InvalidConfig) as caught:
        service(tmp_path, {"memory_limiter": {}})
    assert [problem.split("\n")[0] for problem in caught.value.problems] == [
        "processors::memory_limiter: 'check_interval' must be greater than zero",
        "processors::memory_limiter: 'limit_mib' or 'limit_percentage' must be greater than zero",
    ]


@pytest.mark.parametrize("error", [Retryable("later", 7.0), Permanent("never")])
async def test_errors_of_what_follows_pass_through(error):
    """The sender gets the exporter's own answer."""
    sink = Sink()
    sink.errors = [error]
    with pytest.raises(type(error)) as caught:
        await MemoryLimiter(config(limit_mib=1), host(), sink)(logs({"body": "a"}))
    assert caught.value is error
