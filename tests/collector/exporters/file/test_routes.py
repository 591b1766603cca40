"""Which file a record goes to, and names that come from data."""

import asyncio
import contextlib
import sys
from pathlib import Path

import pytest

from collector.errors import Retryable, StartFailed
from collector.exporters.file.config import GroupBy, Match, Rotation, Route
from collector.stats import Stats
from tests.collector.exporters.batches import exporter, log, logs, points, spans, texts, tree

pytestmark = pytest.mark.anyio

RECORDS = [
    log("plain"),
    log("client", logger="httpx._client"),
    log("neighbour", logger="httpxtra"),
    log("failed", level="ERROR"),
    log("fatal", level="CRITICAL", service="shop"),
    log("detail", level="DEBUG"),
    log("opened", event="order.opened", order__worker__role="worker_open"),
    log("status", http__response__status_code=503, cached=True),
    log("user", user__id="u-1"),
    log("tags", tags=["red", "blue"]),
    log("broken", level="ERROR", exception__type="ValueError"),
    log("near", resource={"host.name": "db-7"}),
]


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ([], [each["body"] for each in RECORDS]),
        ([Match()], [each["body"] for each in RECORDS]),
        ([Match(service=["shop"])], ["fatal"]),
        ([Match(service=["sh*"])], ["fatal"]),
        ([Match(logger=["httpx"])], ["client"]),
        ([Match(level="error")], ["failed", "fatal", "broken"]),
        ([Match(level="critical")], ["fatal"]),
        ([Match(event=["order.opened"])], ["opened"]),
        ([Match(event=["*"])], ["opened"]),
        ([Match(attributes={"order.worker.role": ["worker_open"]})], ["opened"]),
        ([Match(attributes={"order.worker.role": ["worker_*", "x"]})], ["opened"]),
        ([Match(attributes={"order.worker.role": ["worker"]})], []),
        ([Match(attributes={"http.response.status_code": ["503"]})], ["status"]),
        ([Match(attributes={"cached": ["true"]})], ["status"]),
        ([Match(attributes={"http.*": ["*"]})], ["status"]),
        ([Match(attributes={"user.id": ["u-1"]})], ["user"]),
        ([Match(attributes={"user_id": ["u-1"]})], ["user"]),
        ([Match(attributes={"tags": ["blue"]})], ["tags"]),
        ([Match(attributes={"exception.type": ["*Error"]})], ["broken"]),
        ([Match(resource={"host.name": ["db-[0-9]"]})], ["near"]),
        ([Match(level="error", service=["app"])], ["failed", "broken"]),
        ([Match(service=["shop"]), Match(event=["*"])], ["fatal", "opened"]),
        ([Match(signal=["traces"])], []),
    ],
    ids=str,
)
async def test_a_route_takes_what_its_conditions_fit(tmp_path, match, expected):
    """By logger, service, level, event, attribute and resource; the rest goes to `path` (O1)."""
    rest = [each["body"] for each in RECORDS if each["body"] not in expected]
    routes = [Route(path=str(tmp_path / "taken"), match=match)]
    async with exporter(path=str(tmp_path / "rest"), routes=routes) as file:
        await file(logs(*RECORDS))
    assert tree(tmp_path) == {"taken": expected, "rest": rest}


async def test_a_record_goes_to_each_route_that_takes_it(tmp_path):
    """An error is in the file of its role and in the one of all errors; `unless` leaves out."""
    stats = Stats()
    routes = [
        Route(path=str(tmp_path / "shop"), match=[Match(service=["shop"])]),
        Route(path=str(tmp_path / "errors"), match=[Match(level="error")]),
        Route(path=str(tmp_path / "quiet"), unless=[Match(level="error"), Match(event=["*"])]),
    ]
    async with exporter(stats, path="", routes=routes) as file:
        await file(
            logs(
                log("one", service="shop"),
                log("two", service="shop", level="ERROR"),
                log("three", level="ERROR"),
                log("four", event="it.happened"),
            )
        )
    assert tree(tmp_path) == {"shop": ["one", "two"], "errors": ["two", "three"], "quiet": ["one"]}
    assert stats.snapshot() == {'otelier_file_not_routed{exporter="file"}': 1}


async def test_signals_are_routed(tmp_path):
    """Spans and metric points have routes, too; a level is a thing of log records."""
    routes = [
        Route(path=str(tmp_path / "spans"), match=[Match(signal=["traces"])]),
        Route(path=str(tmp_path / "errors"), match=[Match(level="debug")]),
        Route(path=str(tmp_path / "calls"), match=[Match(attributes={"gen_ai.*": ["*"]})]),
    ]
    async with exporter(path=str(tmp_path / "rest"), routes=routes) as file:
        await file(logs("said"))
        await file(spans("chat", gen_ai__request__model="m"))
        await file(points("load", 0.5))
    assert tree(tmp_path) == {
        "spans": ["chat"],
        "errors": ["said"],
        "calls": ["chat"],
        "rest": ["load"],
    }


async def test_each_route_has_its_own_format(tmp_path):
    """A route's format wins over the exporter's; OTLP formats hold just the route's records."""
    routes = [
        Route(path=str(tmp_path / "a.json"), match=[Match(service=["a"])], format="otlp_json"),
        Route(path=str(tmp_path / "b"), match=[Match(service=["b"])]),
    ]
    async with exporter(path=str(tmp_path / "rest"), routes=routes, format="logfmt") as file:
        await file(logs(log("one", service="a"), log("two", service="b"), log("three")))
    (line,) = (tmp_path / "a.json").read_text().splitlines()
    assert line.count('"resourceLogs"') == 1
    assert line.count('"stringValue":"one"') == 1
    assert '"two"' not in line
    assert " service=b logger=app msg=two" in (tmp_path / "b").read_text()
    assert " msg=three" in (tmp_path / "rest").read_text()


async def test_one_file_that_fails_takes_the_batch_out_of_all(tmp_path):
    """When a file of a batch cannot be written, none has it, and a resend stands in each once."""
    routes = [
        Route(path=str(tmp_path / name), match=[Match(service=[name])]) for name in ("a", "b", "c")
    ]
    batch = logs(*(log(name, service=name) for name in ("a", "b", "c")))
    async with exporter(path="", routes=routes) as file:
        await file(batch)
        (tmp_path / "c").rename(tmp_path / "old")
        (tmp_path / "c").mkdir()
        with pytest.raises(Retryable, match=f"cannot write to {tmp_path / 'c'}"):
            await file(batch)
        assert (texts(tmp_path / "a"), texts(tmp_path / "b")) == (["a"], ["b"])
        (tmp_path / "c").rmdir()
        await file(batch)
    assert tree(tmp_path) == {"a": ["a"] * 2, "b": ["b"] * 2, "c": ["c"], "old": ["c"]}


def open_below(folder):
    """How many files below a folder this process has open."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += each.readlink().is_relative_to(folder)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what is open")
async def test_many_files_of_which_few_are_open(tmp_path):
    """R19: batches over more files than may be open are whole and in order; so few are open."""
    group_by = GroupBy(enabled=True, resource_attribute="service.name", max_open_files=4)
    names = [f"s{number}" for number in range(40)]
    async with exporter(path=str(tmp_path / "*.log"), group_by=group_by) as file:
        for turn in range(3):
            await file(logs(*(log(f"{turn}", service=name) for name in names)))
        await asyncio.gather(*(file(logs(log("3", service=name))) for name in names))
        assert open_below(tmp_path) == 4 + 2  # the lock and the journal
    assert tree(tmp_path) == {f"{name}.log": ["0", "1", "2", "3"] for name in names}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what is open")
async def test_a_failed_batch_is_taken_out_of_files_that_were_closed_since(tmp_path):
    """A batch over more files than may be open is in none of them when the last one fails."""
    names = [f"s{number}" for number in range(9)]
    routes = [Route(path=str(tmp_path / n), match=[Match(service=[n])]) for n in names]
    group_by = GroupBy(enabled=True, max_open_files=2)
    batch = logs(*(log(name, service=name) for name in names))
    async with exporter(path=str(tmp_path / "x-*"), group_by=group_by, routes=routes) as file:
        await file(batch)
        (tmp_path / "s8").unlink()
        (tmp_path / "s8").mkdir()
        with pytest.raises(Retryable, match="cannot write to"):
            await file(batch)
        (tmp_path / "s8").rmdir()
        assert tree(tmp_path) == {name: [name] for name in names[:8]}
        await file(batch)
    assert tree(tmp_path) == {**{name: [name] * 2 for name in names[:8]}, "s8": ["s8"]}


HOSTILE = {
    "parent": "../../escaped",
    "absolute": "/tmp/escaped",
    "dots": "..",
    "dot": ".",
    "empty": "",
    "slash": "a/b",
    "backslash": "a\\b",
    "NUL": "a\0b",
    "newline": "a\nb",
    "escape": "\x1b]0;x\x07",
    "bidi": "a\u202eb",
    "home": "~root",
    "hidden": ".ssh",
    "option": "-rf",
    "long": "x" * 300,
    "backup": "app-2025-07-06T05-02-14.173",
    "a day": "app-2025-07-06",
    "reserved": "kept",
}


@pytest.mark.parametrize("allowed", [GroupBy().allowed, "(?s).*"], ids=["default", "anything"])
@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
async def test_a_name_from_data_stays_in_its_folder(tmp_path, name, allowed):
    """B58: what is no plain name shares one file, whatever the pattern allows; nothing is dropped."""
    harmless_elsewhere = {"~root", ".ssh", "-rf"}
    inside = tmp_path / "a" / "logs"
    stats = Stats()
    async with exporter(
        stats,
        path=f"{inside}/*.log",
        create_directory=True,
        group_by=GroupBy(enabled=True, resource_attribute="service.name", allowed=allowed),
        routes=[Route(path=f"{inside}/kept.log", match=[Match(level="error")])],
        rotation=Rotation(),
    ) as file:
        await file(logs(log("hostile", service=name), log("good", service="app")))
    taken = allowed != GroupBy().allowed and name in harmless_elsewhere
    expected = {
        "a/logs/app.log": ["good"],
        "a/logs/kept.log": [],
        f"a/logs/{name if taken else 'other'}.log": ["hostile"],
    }
    assert tree(tmp_path) == expected
    refused = 'otelier_file_refused_names{exporter="file"}'
    assert stats.snapshot().get(refused, 0) == (0 if taken else 1)


async def test_a_record_without_the_attribute_shares_a_file(tmp_path):
    """group_by loses nothing: a record without the attribute is in the file of `otherwise`."""
    group_by = GroupBy(enabled=True, resource_attribute="tenant", otherwise="nobody")
    async with exporter(path=str(tmp_path / "t-*.log"), group_by=group_by) as file:
        await file(
            logs(log("a", resource={"tenant": "x"}), log("b"), log("c", resource={"tenant": 7}))
        )
    assert tree(tmp_path) == {"t-x.log": ["a"], "t-nobody.log": ["b"], "t-7.log": ["c"]}


async def test_the_part_from_data_may_be_a_folder(tmp_path):
    """A `*` in a folder of the path makes that folder for each value."""
    group_by = GroupBy(enabled=True, resource_attribute="service.name")
    async with exporter(
        path=f"{tmp_path}/by/*/x/out.log", group_by=group_by, create_directory=True
    ) as file:
        await file(logs(log("a", service="s1"), log("b", service="s2")))
    assert tree(tmp_path) == {"by/s1/x/out.log": ["a"], "by/s2/x/out.log": ["b"]}
    assert (tmp_path / "by" / "s1").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("target", ["file", "folder"])
async def test_a_link_in_the_folder_is_not_followed(tmp_path, target):
    """CVE-2025-12972: a link that lies where a group's file would be leads nowhere; records are kept."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    if target == "file":
        path = inside / "*.log"
        (inside / "evil.log").symlink_to(outside / "x")
        expected = "other.log"
    else:
        path = inside / "*" / "x.log"
        (inside / "evil").symlink_to(outside)
        expected = "other/x.log"
    group_by = GroupBy(enabled=True, resource_attribute="service.name")
    stats = Stats()
    async with exporter(stats, path=str(path), group_by=group_by) as file:
        for _ in range(2):
            await file(logs(log("kept", service="evil")))
    assert list(outside.iterdir()) == []
    assert texts(inside / expected) == ["kept", "kept"]
    assert stats.snapshot() == {'otelier_file_refused_names{exporter="file"}': 2}


async def test_senders_cannot_fill_a_folder_with_files(tmp_path):
    """Values beyond `max_groups` share a file."""
    group_by = GroupBy(enabled=True, resource_attribute="service.name", max_groups=2)
    async with exporter(path=str(tmp_path / "*.log"), group_by=group_by) as file:
        await file(logs(*(log(name, service=name) for name in ("a", "b", "c", "d", "a"))))
    assert tree(tmp_path) == {"a.log": ["a", "a"], "b.log": ["b"], "other.log": ["c", "d"]}


async def test_a_file_that_somebody_else_has_open_does_not_stop_the_others(tmp_path):
    """A sender that names the file of another exporter waits for nobody: its records are kept."""
    group_by = GroupBy(enabled=True, resource_attribute="service.name")
    async with (
        exporter(path=str(tmp_path / "mine.log")) as mine,
        exporter(path=str(tmp_path / "*.log"), group_by=group_by) as file,
    ):
        await mine(logs("mine"))
        await file(logs(log("a", service="mine"), log("b", service="app")))
    assert tree(tmp_path) == {"mine.log": ["mine"], "app.log": ["b"], "other.log": ["a"]}


async def test_a_second_owner_of_groups_is_refused(tmp_path):
    """Two collectors with one pattern meet at the start, before any file of a group is there."""
    group_by = GroupBy(enabled=True, resource_attribute="service.name")
    async with exporter(path=str(tmp_path / "*.log"), group_by=group_by):
        with pytest.raises(StartFailed, match="another collector or exporter has it open"):
            await exporter(path=str(tmp_path / "*.log"), group_by=group_by).__aenter__()
    async with exporter(path=str(tmp_path / "*.log"), group_by=group_by) as file:
        await file(logs("free again"))
    assert tree(tmp_path) == {"app.log": ["free again"]}


async def test_start_checks_the_folder_of_groups(tmp_path):
    """A folder that is not there is one line with the fix, before any data comes."""
    group_by = GroupBy(enabled=True)
    with pytest.raises(StartFailed, match="the folder does not exist; create it"):
        await exporter(path=str(tmp_path / "no" / "*.log"), group_by=group_by).__aenter__()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "path must be non-empty"),
        ({"path": "a*.log"}, "group_by is not enabled"),
        ({"path": "a.log", "group_by": GroupBy()}, 'exactly one "\\*"'),
        ({"path": "*a.log", "group_by": GroupBy()}, "not begin with it"),
        ({"path": "a/../*.log", "group_by": GroupBy()}, 'must not contain ".."'),
        (
            {"path": "a.log", "routes": [Route(path="./a.log")]},
            r"routes\[0\].path is the file of path, too",
        ),
        (
            {"routes": [Route(path="b"), Route(path="a/../b")]},
            r"routes\[1\].path is the file of routes\[0\], too",
        ),
        ({"path": "a", "encoding": "text_encoding"}, "use format: otlp_json"),
    ],
    ids=str,
)
def test_paths_that_cannot_work_are_refused(settings, text):
    """A path that means nothing, or that two would write, is an error with its fix."""
    with pytest.raises(ValueError, match=text):
        exporter(**settings)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Route(path=""), "path must be non-empty"),
        (lambda: Route(path="a*"), "a route has one file"),
        (lambda: GroupBy(allowed="("), "allowed is no regular expression"),
        (lambda: GroupBy(otherwise="../x"), "otherwise must be 1 to 64 letters"),
        (lambda: GroupBy(max_open_files=0), "max_open_files must be 1 or more"),
        (lambda: GroupBy(resource_attribute=""), "resource_attribute must be non-empty"),
    ],
)
def test_sections_that_cannot_work_are_refused(make, text):
    """A section that means nothing is an error with its fix."""
    with pytest.raises(ValueError, match=text):
        make()
