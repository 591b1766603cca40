"""The journal: whole lines, torn tails, any result, one owner."""

import json
import math
from dataclasses import dataclass

import pytest

from telemetry.batch import BackgroundProcessor, JournalUnusable


def run(journal, items, handler=None, **options):
    async def plain(item, ctx):
        return item

    options = {"key": str, "display": "off", "journal": journal, "concurrency": 1, **options}
    return BackgroundProcessor("leads", handler or plain, **options).run(items)


def item_lines(journal):
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    return [line for line in lines if line["type"] == "item"]


def test_a_record_says_all(tmp_path):
    """L3: one line per item: run, key, fingerprint, outcome, attempts, times, cost, result."""

    async def handler(item, ctx):
        ctx.add_cost(0.1, 2, 3)
        if item == "bad":
            raise ValueError("no")
        return {"is": item}

    journal = tmp_path / "folder" / "leads.jsonl"
    report = run(journal, ["good", "bad"], handler, fingerprint=("prompt-v7", "model-x"))
    lines = item_lines(journal)
    fingerprint = lines[0]["fingerprint"]
    common = {
        "type": "item",
        "run_id": report.run_id,
        "fingerprint": fingerprint,
        "attempts": 1,
        "cost": 0.1,
        "tokens_in": 2,
        "tokens_out": 3,
    }
    for line in lines:
        assert line.pop("start").endswith("Z")
        assert line.pop("duration_s") >= 0
    assert lines == [
        {**common, "key": "good", "outcome": "success", "result": {"is": "good"}},
        {**common, "key": "bad", "outcome": "failure", "error_type": "ValueError", "error": "no"},
    ]
    assert len(fingerprint) == 16
    assert oct(journal.stat().st_mode & 0o777) == "0o640"


def test_what_an_item_spent(tmp_path):
    """L7: a line says what was spent, nothing included; a sum beyond all numbers is null."""
    spent = {"nothing": [], "tokens": [(0, 5, 0)], "little": [(0.5,)], "all": [(1e308,)] * 2}

    async def handler(item, ctx):
        for costs in spent[item]:
            ctx.add_cost(*costs)

    journal = tmp_path / "j"
    run(journal, list(spent), handler)
    assert {
        line["key"]: (line["cost"], line["tokens_in"], line["tokens_out"])
        for line in item_lines(journal)
    } == {
        "nothing": (0.0, 0, 0),
        "tokens": (0.0, 5, 0),
        "little": (0.5, 0, 0),
        "all": (None, 0, 0),
    }


def test_torn_at_every_byte(tmp_path):
    """L3: however much of the last line a crash has left, the journal opens and loses one item."""
    whole = tmp_path / "whole"
    run(whole, ["a", "b"])
    lines = whole.read_bytes().splitlines(keepends=True)
    head, last = b"".join(lines[:2]), lines[2]
    assert json.loads(last)["key"] == "b"
    torn = tmp_path / "torn"
    for cut in range(len(last) + 1):
        torn.write_bytes(head + last[:cut])
        report = run(torn, ["a", "b"])
        done_before = 2 if cut >= len(last) - 1 else 1  # only the line break may be missing
        assert report.counts["resumed"] == done_before, f"cut at {cut}"
        assert [line["key"] for line in item_lines(torn)] == ["a", "b"], f"cut at {cut}"


@pytest.mark.parametrize(
    "damage", [b"\x00" * 40, b"{not json}", b"[1, 2]", b"\xff\xfe", b"17", b""]
)
def test_a_damaged_line_costs_its_item_alone(tmp_path, damage):
    """L3: a bad line in the middle is skipped; the lines after it count."""
    journal = tmp_path / "j"
    run(journal, ["a", "b", "c"])
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = damage + b"\n"
    journal.write_bytes(b"".join(lines))
    report = run(journal, ["a", "b", "c"])
    assert (report.counts["resumed"], report.counts["success"]) == (2, 1)


def test_lines_of_other_shapes(tmp_path):
    """L3: lines with missing or odd fields are nobody's result."""
    journal = tmp_path / "j"
    lines = [
        {"type": "item"},
        {"type": "item", "key": 5, "fingerprint": [], "outcome": {}},
        {"type": "item", "key": "a", "fingerprint": None, "outcome": "success"},
        {"type": "future", "key": "a"},
    ]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(journal, ["a"]).counts["success"] == 1


@dataclass
class Point:
    x: int
    tags: set


RESULTS = [
    (None, None),
    ({"a": [1, 2.5, True, None, "ä\ud800"]}, {"a": [1, 2.5, True, None, "ä\ud800"]}),
    (Point(1, {"t"}), {"x": 1, "tags": ["t"]}),
    ((1, 2), [1, 2]),
    (math.nan, "nan"),
    (b"\xff", "/w=="),
]


@pytest.mark.parametrize(("result", "kept"), RESULTS, ids=lambda value: type(value).__name__)
def test_any_result_is_kept(tmp_path, result, kept):
    """L3: results are JSON where they can be, and told as far as possible where not."""

    async def handler(item, ctx):
        return result

    journal = tmp_path / "j"
    run(journal, ["a"], handler)
    (resumed,) = run(journal, ["a"]).outcomes
    assert (resumed.outcome, resumed.result) == ("resumed", kept)


def test_results_that_fight_back(tmp_path):
    """L3: a result that cannot be told at all is still a finished item."""

    class Fighter:
        def __getattr__(self, name):
            raise RuntimeError(name)

        def __repr__(self):
            raise RuntimeError("repr")

    endless = []
    endless.append(endless)

    async def handler(item, ctx):
        return {"fighter": Fighter(), "endless": endless}[item]

    journal = tmp_path / "j"
    assert run(journal, ["fighter", "endless"], handler).counts["success"] == 2
    assert run(journal, ["fighter", "endless"]).counts["resumed"] == 2
    assert [line["result_lossy"] for line in item_lines(journal)] == [True, True]


def test_odd_keys(tmp_path):
    """L3: keys of any text come back as they were."""
    keys = ["", " ", "a\nb", "\x00", "ä€😀", "\ud800", "x" * 5000, '"']
    journal = tmp_path / "j"
    run(journal, keys)
    assert run(journal, keys).counts["resumed"] == len(keys)


def test_a_fingerprint_of_each_item(tmp_path):
    """L3: with a function as fingerprint only the items that changed are worked on again."""
    journal = tmp_path / "j"

    def fingerprint(item):
        return item["version"]

    def leads(version):
        return [{"id": 1, "version": 1}, {"id": 2, "version": version}]

    options = {"key": lambda item: item["id"], "fingerprint": fingerprint}
    run(journal, leads(1), **options)
    report = run(journal, leads(2), **options)
    assert {outcome.key: outcome.outcome for outcome in report.outcomes} == {
        "1": "resumed",
        "2": "success",
    }


@pytest.mark.parametrize("policy", ["each", "interval", "never"])
def test_every_fsync_policy_keeps_everything(tmp_path, policy):
    """L3: the policies differ in what a power cut may take, not in what is written."""
    journal = tmp_path / "j"
    run(journal, range(20), fsync=policy, concurrency=4)
    assert run(journal, range(20)).counts["resumed"] == 20


@pytest.mark.parametrize("kind", ["device", "folder", "symlink"])
def test_only_a_regular_file_is_a_journal(tmp_path, kind):
    """L3: a journal is a regular file; anything else is refused with the fix."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    path = {"device": "/dev/full", "folder": tmp_path, "symlink": link}[kind]
    with pytest.raises(JournalUnusable, match="another path"):
        run(path, ["a"])
    assert not (tmp_path / "elsewhere").exists()
