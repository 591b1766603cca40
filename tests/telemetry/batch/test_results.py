"""Results and journals over several runs: nothing that is done gets lost, nothing of others is believed."""

import json

import pytest

from telemetry.batch import BackgroundProcessor, JournalUnusable, Limits, Stop

STOP = Stop(signals=(), grace=0.05, cleanup=0.05)


def processor(name, handler, **options):
    return BackgroundProcessor(
        name, handler, **{"key": str, "display": "off", "stop": STOP, **options}
    )


async def paid(item, ctx):
    ctx.add_cost(1)
    return item


def keys(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["key"] for line in lines if line["type"] == "item"]


def test_a_shorter_run_keeps_the_results(tmp_path):
    """Issue 19.4: each item that is done is in the file once, however the runs are cut; a torn line too."""
    results = tmp_path / "out.jsonl"

    def run(limit):
        return processor(
            "b",
            paid,
            journal=tmp_path / "j.jsonl",
            results=results,
            concurrency=1,
            limits=Limits(run_cost=limit),
        ).run(range(12))

    run(6)
    with results.open("a") as file:
        file.write('{"type": "item", "key": "9')
    run(2)
    run(9)
    lines = results.read_text().splitlines()
    assert lines.count('{"type": "item", "key": "9') == 1
    results.write_text("".join(line + "\n" for line in lines if not line.endswith('"9')))
    assert sorted(keys(results), key=int) == [str(item) for item in range(12)]


def test_results_that_were_removed_are_written_again(tmp_path):
    """Issue 19.4: resumed items are in a new file with their results."""
    for _ in range(2):
        results = tmp_path / "out.jsonl"
        results.unlink(missing_ok=True)
        processor("b", paid, journal=tmp_path / "j.jsonl", results=results).run(range(3))
        assert sorted(keys(results)) == ["0", "1", "2"]


def test_without_a_journal_results_are_those_of_the_run(tmp_path):
    """Issue 19.4: a run that resumes nothing begins its file anew."""
    for items in (range(5), range(2)):
        processor("b", paid, results=tmp_path / "out.jsonl").run(items)
    assert sorted(keys(tmp_path / "out.jsonl")) == ["0", "1"]


def test_a_journal_of_another_batch_is_refused(tmp_path):
    """Issue 19.4: results of another batch are not believed; both are named."""
    processor("classify", paid, journal=tmp_path / "j.jsonl").run([1])
    with pytest.raises(
        JournalUnusable, match="is of the batch 'classify', and this one is 'enrich'"
    ):
        processor("enrich", paid, journal=tmp_path / "j.jsonl").run([1])


def test_a_key_that_is_none_is_a_failure_of_its_item():
    """Issue 19.4: None is no identity; the item fails before it is paid for, the others go on."""
    report = processor("b", paid, key=lambda item: item or None).run([0, 5])
    assert {outcome.item: outcome.outcome for outcome in report.outcomes} == {
        0: "failure",
        5: "success",
    }
    assert report.cost.amount == 1
