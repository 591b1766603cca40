"""A failure that leaves an attempt as no Exception, or out of a hook, is recorded and counted once."""

import pytest


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_failure_of_any_kind_is_recorded_once(sink, publish, worker, pool):
    """One record by the attempt itself, one count, and nothing from the main process after it."""
    one = worker(f"--pool={pool}", "--concurrency=2", OTEL_METRIC_EXPORT_INTERVAL="60000").ready()
    kinds = ("cancelled", "generator", "own", "group")
    sent = publish(
        one.queue,
        f"for kind in {kinds}: send(stopped, kind)\nsend(failing_hook)\nsend(add, 1, 2)",
    )
    for task_id in sent[:-1]:
        sink.told(task_id, "failed")
    sink.told(sent[-1], "succeeded")
    assert one.stop() == 0
    assert [sink.story(task_id) for task_id in sent[:-1]] == [["started", "failed"]] * 5
    attempts = {task_id: sink.runs(task_id)[0]["span_id"] for task_id in sent[:-1]}
    assert {
        task_id: record["span_id"]
        for task_id in sent[:-1]
        for record in sink.events(task_id)
        if record["event"].endswith(".failed")
    } == attempts
    failures = sink.total("celery.task.outcomes", one.service, state="FAILURE")
    assert failures == 5
