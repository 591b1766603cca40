"""Celery's own commands to Redis are no spans; a task's own commands are."""

import pytest


@pytest.mark.parametrize("shown", ["", "true"])
def test_only_a_tasks_own_commands_are_spans(sink, publish, worker, shown):
    """With contrib's redis instrumentation: one SET of the task, nothing of publish, consume, results."""
    pytest.importorskip("opentelemetry.instrumentation.redis")
    one = worker("--concurrency=1", TELEMETRY_CELERY_BROKER_SPANS=shown).ready()
    sent = publish(one.queue, "send(own_redis)\nsend(add, 1, 2)")
    for task_id in sent:
        sink.told(task_id, "succeeded")
    (run,) = sink.runs(sent[0])
    assert one.stop() == 0
    commands = [
        (span["name"], span["trace_id"] == run["trace_id"])
        for span in sink.spans
        if span["service"] == one.service and span["kind"] == "CLIENT"
    ]
    if shown:
        assert len(commands) > 3
    else:
        assert commands == [("SET", True)]
    publishers = [
        span["name"]
        for span in sink.spans
        if span["kind"] == "CLIENT"
        and span["service"] != one.service
        and span["trace_id"] == run["trace_id"]
    ]
    assert publishers == []
