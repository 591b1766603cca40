"""Processes that end, in each way that they do: nothing is lost, nothing is said twice."""

import signal
import socket

import pytest


def complete(sink, sent):
    """Each task has its attempt, its two records and its two lines, once."""
    for task_id in sent:
        sink.told(task_id, "succeeded")
        sink.wait(lambda task_id=task_id: len(sink.lines(task_id)) >= 2)
        sink.runs(task_id)
    return [
        (sink.story(task_id), len(sink.lines(task_id)), len(sink.runs(task_id))) for task_id in sent
    ] == [(["started", "succeeded"], 2, 1)] * len(sent)


def metrics_are_complete(sink, worker, count):
    """The children's metrics add up: no sum was inherited, none was lost."""
    sink.wait(lambda: sink.total("celery.task.outcomes", worker.service, state="SUCCESS") >= count)
    assert sink.total("celery.task.outcomes", worker.service, state="SUCCESS") == count
    assert sink.total("messaging.process.duration", worker.service, task="shop.work") == count


def recycle(sink, publish, worker, limits):
    workers = [worker("--concurrency=4", f"--max-tasks-per-child={limit}") for limit in limits]
    sent = [publish(one.queue, "for n in range(20): send(work)") for one in workers]
    for one, ids in zip(workers, sent, strict=True):
        assert complete(sink, ids)
        metrics_are_complete(sink, one, 20)


def test_recycled_children_lose_nothing(sink, publish, worker):
    """max_tasks_per_child 1: 20 of 20 spans, records, lines and counts (C5)."""
    recycle(sink, publish, worker, (1,))


@pytest.mark.full
def test_children_recycled_less_often_lose_nothing(sink, publish, worker):
    """max_tasks_per_child 2, 5, 10 and 1000: 20 of 20 (C5)."""
    recycle(sink, publish, worker, (2, 5))
    recycle(sink, publish, worker, (10, 1000))


def test_sigterm_loses_nothing(sink, publish, worker):
    """A worker that is told to stop while tasks run finishes them, sends all and leaves (C5)."""
    one = worker("--concurrency=2", OTEL_METRIC_EXPORT_INTERVAL="60000").ready()
    sent = publish(one.queue, "for n in range(6): send(work, 0.5)")
    sink.told(sent[0], "started")
    assert one.stop(signal.SIGTERM) == 0
    done = [task_id for task_id in sent if "started" in sink.story(task_id)]
    assert len(done) >= 2
    assert complete(sink, done)
    metrics_are_complete(sink, one, len(done))


def speak_until_killed(sink, publish, worker, count, *, how, limit=None):
    """What a task has said, once all of it has arrived, as lines and as spans; and its story."""
    code = f"send(last_words, {str(count)!r}, {how!r}, time_limit={limit})"
    (task_id,) = publish(worker.queue, code)
    story = sink.told(task_id, "failed" if limit else "lost")
    said = {f"{how} {number}" for number in range(count.stat().st_size)}
    sink.wait(lambda: said <= {record["message"] for record in sink.lines(task_id)})
    sink.wait(lambda: said <= {span["name"] for span in sink.spans})
    return len(said), story


def test_the_last_words_of_killed_tasks_arrive(sink, publish, worker, tmp_path):
    """With a spool all that a task said before os._exit or a hard time limit is there (C5, G12)."""
    spool = tmp_path / "spool"
    one = worker("--concurrency=2", TELEMETRY_SPOOL_DIR=str(spool)).ready()
    steps, story = speak_until_killed(sink, publish, one, tmp_path / "one", how="exit")
    assert (steps, story) == (21, ["started", "lost"])
    steps, story = speak_until_killed(sink, publish, one, tmp_path / "two", how="limit", limit=2)
    assert steps > 1
    assert story == ["started", "failed"]
    (behind,) = publish(one.queue, "send(work)")
    assert complete(sink, [behind])
    assert one.stop() == 0
    assert list(spool.iterdir()) == []


def test_children_that_cannot_send_leave_it_to_the_spool(sink, publish, worker, refused, tmp_path):
    """Recycled children with the collector away lose nothing: a later worker delivers it (C5)."""
    spool = tmp_path / "spool"
    options = {"TELEMETRY_SPOOL_DIR": str(spool), "OTEL_METRICS_EXPORTER": "none"}
    away = worker("--concurrency=2", "--max-tasks-per-child=2", endpoint=refused, **options)
    ids = publish(away.queue, "for n in range(10): send(work)")
    publish(away.queue, f"OUT[:] = [app.AsyncResult(i).get(timeout=60) for i in {ids!r}]")
    assert away.stop() == 0
    assert not [task_id for task_id in ids if sink.story(task_id)]
    later = worker("--pool=solo", **options).ready()
    publish(later.queue, "OUT[:] = [send(work).get(timeout=60)]")
    assert complete(sink, ids)
    assert later.stop() == 0
    assert list(spool.iterdir()) == []


def test_one_call_is_enough(sink, publish, coded):
    """Without the wrapper, `instrument(app)` sets everything up; link mode keeps ids (C4, C8)."""
    code = """
with telemetry.log_context(tenant_id="t-1", correlation_id="c-1"):
    send(flaky, 1)
    send(burn)
send(work, kwargs={"customer": "t-2"})
"""
    flaky, burned, mapped = publish(coded.queue, code)
    assert sink.told(flaky, "succeeded") == ["started", "retried", "started", "succeeded"]
    for run in sink.runs(flaky, 2):
        assert (run["service"], run["parent_id"], len(run["links"])) == ("coded-shop", "", 1)
        assert (run["attributes"]["tenant.id"], run["attributes"]["correlation.id"]) == (
            "t-1",
            "c-1",
        )
        assert run["attributes"]["celery.worker.pool"] == "solo"
    sink.told(burned, "succeeded")
    facts = sink.event(burned, "succeeded")["attributes"]
    assert facts["celery.task.cpu_s"] >= 0.05
    assert facts["celery.task.memory_delta_bytes"] > 10_000_000
    sink.told(mapped, "succeeded")
    assert sink.event(mapped, "started")["attributes"]["tenant.id"] == "t-2"


def test_the_other_instrumentation_stands_down(sink, publish, worker):
    """A program that switches CeleryInstrumentor on has one span per attempt, and is told so."""
    one = worker("--concurrency=1", app="rival").ready()
    (task_id,) = publish(one.queue, "send(work)")
    assert complete(sink, [task_id])
    one.stop()
    mine = [span for span in sink.spans if span["service"] == one.service]
    assert [span["name"] for span in mine] == ["process shop.work"]
    assert "otelier: CeleryInstrumentor is left off" in one.text


def test_a_broken_endpoint_never_hurts(publish, worker, refused):
    """With nobody or a black hole at the endpoint tasks run as ever, and the worker stops in time."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        silent_url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        workers = [
            worker("--concurrency=2", endpoint=url, TELEMETRY_EXIT_TIMEOUT="1")
            for url in (refused, silent_url)
        ]
        for one in workers:
            code = "OUT[:] = [r.get(timeout=60) for r in [send(add, n, 1) for n in range(20)]]"
            assert publish(one.queue, code) == list(range(1, 21))
        for one in workers:
            one.wait_for("READY")
            one.process.send_signal(signal.SIGTERM)
        for one in workers:
            assert one.stop(0) == 0
            assert "Traceback" not in one.text


def test_beat_names_its_entries(sink, publish, prefork, redis_url, tmp_path):
    """A task of `celery beat` says which entry of the schedule it comes from (C25)."""
    from tests.telemetry.celery import harness

    beat = harness.Process(
        [
            *(str(harness.BIN / "opentelemetry-instrument"), str(harness.BIN / "celery")),
            *("-A", "shop", "beat", "--schedule", str(tmp_path / "schedule")),
        ],
        harness.environment(redis_url, sink.url, "beat", QUEUE=prefork.queue, BEAT="1"),
        tmp_path,
    )
    try:
        (sent,) = sink.wait(lambda: [span for span in sink.spans if span["service"] == "beat"][:1])
    finally:
        beat.stop()
        beat.close()
    assert sent["attributes"].get("celery.beat.entry") == "each second", sent
    task_id = sent["attributes"]["celery.task.id"]
    (run,) = sink.runs(task_id)
    assert run["attributes"]["celery.beat.entry"] == "each second"
    assert run["attributes"]["correlation.id"] == task_id


def test_a_worker_can_be_without(publish, worker):
    """OTEL_SDK_DISABLED switches all off; with threads replaced by a library a worker says why."""
    workers = [
        worker("--pool=solo", OTEL_SDK_DISABLED="true"),
        worker("--pool=solo", app="green", GREEN="gevent"),
        worker("--pool=solo", app="green", GREEN="eventlet"),
    ]
    for one in workers:
        assert publish(one.queue, "OUT[:] = [send(add, 1, 2).get(timeout=60)]") == [3]
    disabled, *refused = workers
    assert "otelier" not in disabled.text
    for one in refused:
        one.wait_for("otelier: the pool solo is not supported")


def test_importing_the_layer_does_not_import_celery():
    """A web process under the wrapper pays for Celery only when it imports it."""
    import subprocess
    import sys

    from tests.telemetry.celery import harness

    code = "import sys; assert 'celery' not in sys.modules; import celery.app; print('in')"
    done = subprocess.run(
        [str(harness.BIN / "opentelemetry-instrument"), sys.executable, "-c", code],
        env=harness.environment("", "http://127.0.0.1:9", "web"),
        capture_output=True,
        text=True,
        check=False,
        timeout=harness.WAIT_S,
    )
    assert (done.stdout, done.returncode) == ("in\n", 0)


def test_the_environment_sets_options(sink, publish, worker):
    """TELEMETRY_CELERY_MODE and _RESOURCES work without code; a bad value is said and not used."""
    linked = worker("--pool=solo", TELEMETRY_CELERY_MODE="link", TELEMETRY_CELERY_RESOURCES="true")
    bad = worker("--pool=solo", TELEMETRY_CELERY_MODE="links")
    (first,) = publish(linked.queue, "send(work)")
    (second,) = publish(bad.queue, "send(work)")
    sink.told(first, "succeeded")
    sink.told(second, "succeeded")
    assert [len(sink.runs(each)[0]["links"]) for each in (first, second)] == [1, 0]
    assert sink.event(first, "succeeded")["attributes"]["celery.task.cpu_s"] > 0
    assert "TELEMETRY_CELERY_MODE='links' cannot be used; give one of auto, child, link" in bad.text
