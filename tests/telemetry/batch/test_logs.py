"""The three outputs of a run: folders debug, production and progress."""

import datetime
import gzip
import json
import logging
import os
import re
import time

import pytest

from telemetry._batch import output_files
from telemetry.batch import BackgroundProcessor, Logs

TODAY = datetime.datetime.now().astimezone().strftime("%Y-%m-%d")


async def handler(item, ctx):
    log = logging.getLogger("leads")
    log.debug("rule attempt", extra={"name_": "DIEMBY"})
    log.info("llm enabled")
    logging.getLogger("httpx").debug("POST /v1/messages")
    log.debug("response", extra={"gen_ai.request.model": "m"})
    log.debug("measured", extra={"duration_ms": 3})
    if item == "bad":
        raise ValueError("no luck")


def run(folder, items=("good", "bad"), **options):
    options = {"key": str, "display": "off", "logs": folder, "concurrency": 1, **options}
    return BackgroundProcessor("leads", handler, **options).run(items)


def words(path):
    """The message of each line: what follows the time and the level, up to the fields."""
    return [
        line.split(" ", 2)[2].partition(" leads.")[0].split(" name_=")[0].split(" batch")[0]
        for line in path.read_text().splitlines()
        if line[:2] == "20"
    ]


def test_the_folders_of_the_seed(tmp_path, monkeypatch):
    """L6: the files of the seed, each with its own records; debug has everything."""
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    run(tmp_path / "logs", ["bad"])
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert files == [
        f"logs/debug/api-calls-{TODAY}.log",
        f"logs/debug/classification-{TODAY}.log",
        f"logs/debug/performance-{TODAY}.log",
        f"logs/production/errors-{TODAY}.log",
        f"logs/production/metrics-{TODAY}.log",
        f"logs/production/operations-{TODAY}.log",
        "logs/progress/batch-status.json",
        "logs/progress/current-operation.log",
        "logs/progress/leads.json",
    ]

    def said(name):
        lines = words(tmp_path / "logs" / f"{name}-{TODAY}.log")
        return [re.sub(r"in [0-9.]+ s,", "in N s,", line) for line in lines]

    summary = "leads: failure in N s, failure 1, limit of failures 50 %"
    assert said("debug/api-calls") == ["POST /v1/messages", "response gen_ai.request.model=m"]
    begin = "leads: 0/1 (0.0 %), 0.0/s, eta unknown"
    steps = ["rule attempt", "llm enabled", summary]
    assert said("debug/classification") == ["batch started", begin, *steps]
    assert said("debug/performance") == ["measured duration_ms=3", "item failure"]
    assert said("production/errors") == ["item failure"]
    assert said("production/metrics") == [begin, summary]
    assert said("production/operations") == [
        "batch started",
        "llm enabled",
        "item failure",
        summary,
    ]
    status = json.loads((tmp_path / "logs/progress/batch-status.json").read_text())
    assert status == json.loads((tmp_path / "logs/progress/leads.json").read_text())
    assert status["state"] == "finished"


def test_levels_come_from_the_environment(tmp_path, monkeypatch):
    """L6: LOG_LEVEL decides what is logged; afterwards the root logger is as it was."""
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    run(tmp_path)
    assert (root.level, list(root.handlers)) == before
    assert words(tmp_path / f"production/operations-{TODAY}.log")[0] == "item failure"
    assert not (tmp_path / f"debug/api-calls-{TODAY}.log").exists()


def test_json_lines(tmp_path, monkeypatch):
    """L6: with LOG_FORMAT=json each line is an object with the ids of the run."""
    monkeypatch.setenv("LOG_FORMAT", "json")
    report = run(tmp_path, ["bad"])
    path = tmp_path / f"production/errors-{TODAY}.log"
    (line,) = map(json.loads, path.read_text().splitlines())
    assert line["context"]["batch_run_id"] == report.run_id
    assert line["exception"]["message"] == "no luck"


def old(folder, name, days, text="old\n"):
    day = datetime.datetime.now().astimezone().date() - datetime.timedelta(days=days)
    path = folder / "debug" / f"{name}-{day}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    past = time.time() - 3600
    os.utime(path, (past, past))
    return path


def test_files_of_past_days_are_compressed(tmp_path):
    """L6: a file of yesterday becomes a .gz with the same content; today's and others stay."""
    past = old(tmp_path, "performance", 1)
    today = old(tmp_path, "performance", 0)
    other = tmp_path / "debug" / "notes.log"
    other.write_text("mine")
    output_files.tidy(Logs(tmp_path))
    assert gzip.decompress(past.with_name(past.name + ".gz").read_bytes()) == b"old\n"
    assert sorted(path.name for path in (tmp_path / "debug").iterdir()) == sorted(
        [other.name, today.name, past.name + ".gz"]
    )


def test_lines_that_came_late_are_kept(tmp_path):
    """L6: what another process still wrote after compression is added, not lost."""
    old(tmp_path, "performance", 2)
    output_files.tidy(Logs(tmp_path))
    past = old(tmp_path, "performance", 2, "late\n")
    output_files.tidy(Logs(tmp_path))
    assert gzip.decompress(past.with_name(past.name + ".gz").read_bytes()) == b"old\nlate\n"


def test_old_files_are_deleted_on_request(tmp_path):
    """L6: `keep_days` deletes what is older, compressed or not; without it all is kept."""
    old(tmp_path, "performance", 40)
    output_files.tidy(Logs(tmp_path))
    kept = old(tmp_path, "api-calls", 40)
    output_files.tidy(Logs(tmp_path, compress=False))
    assert len(list((tmp_path / "debug").iterdir())) == 2
    output_files.tidy(Logs(tmp_path, keep_days=30))
    assert list((tmp_path / "debug").iterdir()) == []
    assert not kept.exists()


@pytest.mark.parametrize("name", ["classification", "operations"])
def test_no_link_is_followed(tmp_path, name):
    """L6: a symbolic link in the place of a log file is not written through."""
    target = tmp_path / "target"
    for folder in ("debug", "production"):
        (tmp_path / "logs" / folder).mkdir(parents=True)
        (tmp_path / "logs" / folder / f"{name}-{TODAY}.log").symlink_to(target)
    assert run(tmp_path / "logs").counts["success"] == 1
    assert not target.exists()
