"""What is told about a task, on a prefork worker: each change of state once, by whoever saw it."""

import os

import pytest

PUBLISHED = """
ids = {}
def one(name, task, *args, **options):
    ids[name] = send(task, *args, **options).id
one("add", add, 1, 2)
one("fail", fail)
one("expected", expected)
one("unpicklable", fail, "unpicklable")
one("flaky", flaky, 2, countdown=0.3)
one("exhausted", flaky, 9)
one("soft", soft)
one("caught", soft, True)
one("reject", reject)
one("ignore", ignore)
one("expired", add, 1, 1, expires=-5)
revoked = send(add, 3, 3, countdown=1.0)
app.control.revoke(revoked.id)
ids["revoked"] = revoked.id
ids["unknown"] = app.send_task("nowhere.nothing", queue=Q, kwargs={"tenant_id": "t-1"}).id
OUT = [ids]
"""


KILLED = """
OUT = [
    {
        "hard": send(hard, kwargs={"tenant_id": "t-hard"}).id,
        "die": send(die, kwargs={"tenant_id": "t-die"}).id,
        "terminated": send(work, 30).id,
    }
]
"""


@pytest.fixture(scope="module")
def ids(publish, prefork):
    """One task of each kind, published together; their ids by name."""
    (found,) = publish(prefork.queue, PUBLISHED)
    return found


@pytest.fixture(scope="module")
def killed(sink, publish, prefork, ids):
    """Tasks whose process is killed: they come last, as a process takes with it what it has."""
    for task_id in ids.values():
        sink.wait(lambda task_id=task_id: set(sink.story(task_id)) & ENDS)
    (found,) = publish(prefork.queue, KILLED)
    return found


ENDS = {"succeeded", "failed", "rejected", "ignored", "revoked", "lost"}


def test_a_success_is_started_and_succeeded(sink, ids, prefork):
    """Started and succeeded carry id, name, state, retries, duration, wait, worker, queue (C1)."""
    task_id = ids["add"]
    assert sink.told(task_id, "succeeded") == ["started", "succeeded"]
    (span,) = sink.runs(task_id)
    common = {
        "messaging.system": "redis",
        "messaging.destination.name": prefork.queue,
        "messaging.message.id": task_id,
        "celery.task.id": task_id,
        "celery.task.name": "shop.add",
        "celery.task.retries": 0,
        "celery.task.root_id": task_id,
        "celery.worker.hostname": "main@test",
        "celery.worker.pool": "prefork",
        "correlation.id": task_id,
        "operation.name": "task.shop.add",
    }
    started, ended = (sink.event(task_id, word) for word in ("started", "succeeded"))
    assert {**started["attributes"], "log.record.uid": "", "celery.task.wait_ms": 0} == {
        **common,
        "log.record.uid": "",
        "celery.task.wait_ms": 0,
        "celery.task.state": "STARTED",
    }
    varying = {"log.record.uid": "", "celery.task.wait_ms": 0, "operation.execution_time_ms": 0}
    told = {**common, "celery.task.state": "SUCCESS", "operation.status": "success"}
    assert {**ended["attributes"], **varying} == {**told, **varying}
    assert started["attributes"]["celery.task.wait_ms"] > 0
    assert ended["attributes"]["operation.execution_time_ms"] > 0
    assert (started["message"], ended["message"]) == ("Task started", "Task completed")
    for record in (started, ended, *sink.lines(task_id)):
        assert (record["trace_id"], record["span_id"]) == (span["trace_id"], span["span_id"])
    assert (span["name"], span["status"]) == ("process shop.add", "UNSET")
    operation = {"messaging.operation.name": "process", "messaging.operation.type": "process"}
    del varying["log.record.uid"]
    assert {**span["attributes"], **varying} == {**told, **operation, **varying}


def test_a_failure_has_its_exception_once(sink, ids):
    """Failed is an ERROR with type, text and stack; no other record and no span event has them."""
    task_id = ids["fail"]
    assert sink.told(task_id, "failed") == ["started", "failed"]
    failed = sink.event(task_id, "failed")
    assert failed["level"] == "ERROR"
    facts = failed["attributes"]
    assert (facts["exception.type"], facts["exception.message"]) == (
        "ValueError",
        "broken by the test",
    )
    assert 'raise ValueError("broken by the test")' in facts["exception.stacktrace"]
    assert (facts["celery.task.state"], facts["error.type"]) == ("FAILURE", "ValueError")
    (span,) = sink.runs(task_id)
    assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", "ValueError")
    assert span["events"] == []
    assert [record["message"] for record in sink.lines(task_id)] == ["before the failure"]
    told = [
        record
        for record in sink.logs
        if "broken by the test" in str(record["attributes"]) + str(record["message"])
    ]
    assert told == [failed]


def test_an_expected_failure_is_a_warning(sink, ids):
    """An exception that the task declares with `throws` is a WARN."""
    assert sink.told(ids["expected"], "failed") == ["started", "failed"]
    failed = sink.event(ids["expected"], "failed")
    assert (failed["level"], failed["attributes"]["error.type"]) == ("WARN", "KeyError")


def test_the_tasks_own_exception_is_told(sink, ids):
    """An exception that cannot be pickled is told as itself, not as Celery's stand-in."""
    sink.told(ids["unpicklable"], "failed")
    assert sink.event(ids["unpicklable"], "failed")["attributes"]["error.type"] == (
        "shop.Unpicklable"
    )


def test_retries_are_told_with_delay_and_reason(sink, ids):
    """Each attempt is started and retried, with its number; the last one succeeds (C1, C03)."""
    task_id = ids["flaky"]
    words = ["started", "retried"] * 2 + ["started", "succeeded"]
    assert sink.told(task_id, "succeeded") == words
    for number in (0, 1):
        retried = sink.event(task_id, "retried", number=number)
        facts = retried["attributes"]
        assert (retried["level"], facts["celery.task.state"]) == ("WARN", "RETRY")
        assert (facts["celery.task.retries"], facts["error.type"]) == (number, "ConnectionError")
        assert facts["celery.task.retry.delay"] == 0.01
        assert facts["celery.task.reason"] == "not yet"
        assert [key for key in facts if key.startswith("exception.")] == []
    spans = sink.runs(task_id, 3)
    # The attempts may run in different children, whose exports arrive in any order.
    assert sorted(span["attributes"]["celery.task.retries"] for span in spans) == [0, 1, 2]
    assert [span["status"] for span in spans] == ["UNSET"] * 3


def test_the_wait_leaves_out_the_countdown(sink, ids):
    """The queue wait counts from the moment that the task was to run, not from its publish."""
    wait = sink.event(ids["flaky"], "started")["attributes"]["celery.task.wait_ms"]
    eta = sink.event(ids["flaky"], "started")["attributes"]["celery.task.eta"]
    assert eta
    (span,) = [span for span in sink.sends(ids["flaky"]) if not span["parent_id"]]
    assert span["attributes"]["celery.task.eta"] == eta
    assert wait >= 0


def test_used_up_retries_fail_with_the_last_exception(sink, ids):
    """The exception is recorded once, after the last attempt."""
    task_id = ids["exhausted"]
    assert sink.told(task_id, "failed") == ["started", "retried"] * 3 + ["started", "failed"]
    facts = sink.event(task_id, "failed")["attributes"]
    assert (facts["celery.task.retries"], facts["exception.type"]) == (3, "ConnectionError")


def test_a_soft_time_limit_is_a_failure_like_others(sink, ids):
    """Uncaught it fails with SoftTimeLimitExceeded; caught the task succeeds."""
    assert sink.told(ids["soft"], "failed") == ["started", "failed"]
    kind = sink.event(ids["soft"], "failed")["attributes"]["exception.type"]
    assert kind.rpartition(".")[2] == "SoftTimeLimitExceeded"
    assert sink.told(ids["caught"], "succeeded") == ["started", "succeeded"]
    assert [record["message"] for record in sink.lines(ids["caught"])] == ["cleaned up"]


def test_reject_and_ignore_are_told_once(sink, ids):
    """Rejected and ignored come from the child; the parent's task_failure adds nothing (C07)."""
    assert sink.told(ids["reject"], "rejected") == ["started", "rejected"]
    facts = sink.event(ids["reject"], "rejected")["attributes"]
    assert (facts["celery.task.state"], facts["celery.task.reason"]) == ("REJECTED", "no good")
    assert facts["celery.task.requeued"] is False
    assert sink.told(ids["ignore"], "ignored") == ["started", "ignored"]
    assert sink.event(ids["ignore"], "ignored")["attributes"]["celery.task.reason"] == "not needed"


def test_expired_and_revoked_tasks_are_told_by_the_parent(sink, ids):
    """They never start; revoked says why, once (C06)."""
    for name, why in (("expired", "expired"), ("revoked", "revoked")):
        assert sink.told(ids[name], "revoked") == ["revoked"]
        facts = sink.event(ids[name], "revoked")["attributes"]
        told = [facts[key] for key in ("celery.task.state", "celery.task.reason", "error.type")]
        assert told == ["REVOKED", why, why]


def test_an_unknown_task_fails_in_the_parent(sink, ids, prefork):
    """`send_task` of a name that the worker does not have: one record; the span of the publish ended."""
    task_id = ids["unknown"]
    assert sink.told(task_id, "failed") == ["failed"]
    facts = sink.event(task_id, "failed")["attributes"]
    assert (facts["error.type"], facts["celery.task.name"], facts["tenant.id"]) == (
        "celery.exceptions.NotRegistered",
        "nowhere.nothing",
        "t-1",
    )
    (sent,) = sink.sends(task_id)
    assert (sent["name"], sent["status"]) == (f"send {prefork.queue}", "UNSET")
    sink.wait(lambda: sink.total("celery.task.outcomes", prefork.service, task="_OTHER") == 1)


def test_two_copies_of_a_task_are_counted(sink, publish, prefork):
    """The same id twice at once: both runs are told apart, and the overlap is counted."""
    sent = publish(
        prefork.queue,
        "send(work, 1.0, task_id='twin-1'); import time; time.sleep(0.3);"
        "send(work, 1.0, task_id='twin-1')",
    )
    assert sent == ["twin-1", "twin-1"]
    spans = sink.runs("twin-1", 2)
    sink.wait(lambda: sink.story("twin-1").count("succeeded") == 2)
    story = sink.story("twin-1")
    assert sorted(story) == ["received", "started", "started", "succeeded", "succeeded"]
    assert sink.event("twin-1", "received")["attributes"]["celery.task.overlapping"] is True
    for span in spans:
        mine = [item for item in sink.lines("twin-1") if item["span_id"] == span["span_id"]]
        assert [record["message"] for record in mine] == ["begin", "end"]
    sink.wait(lambda: sink.total("celery.task.overlaps", prefork.service) == 1)


AGAIN = """
import json, time
task_id = add.apply_async((1, 2), queue=Q + "-held").id
redis = app.connection_for_write().default_channel.client
while not redis.llen(Q + "-held"):
    time.sleep(0.01)
message = json.loads(redis.rpop(Q + "-held"))
message["properties"]["delivery_info"].update(redelivered=True, routing_key=Q)
for copy in range(2):
    redis.lpush(Q, json.dumps(message))
OUT = [task_id]
"""


@pytest.fixture(scope="module")
def late(workers):
    """A worker that acknowledges late, at a broker that does not wait for long."""
    return workers("late", "--concurrency=1", LATE="1", VISIBILITY="25")


def test_a_copy_that_celery_skips_is_told(sink, publish, late):
    """A task that has succeeded is not run again; both deliveries are counted, and the skip (C18)."""
    (task_id,) = publish(late.queue, AGAIN)
    assert sink.told(task_id, "ignored").count("received") == 2
    sink.told(task_id, "succeeded")
    assert sorted(sink.story(task_id)) == [
        *("ignored", "received", "received"),
        *("started", "succeeded"),
    ]
    ignored = sink.event(task_id, "ignored")["attributes"]
    assert (ignored["celery.task.reason"], ignored["celery.task.state"]) == (
        "deduplicated",
        "IGNORED",
    )
    skipped = {"state": "IGNORED", "error": "deduplicated"}
    sink.wait(lambda: sink.total("celery.task.outcomes", late.service, **skipped) == 1)
    sink.wait(lambda: sink.total("celery.task.redeliveries", late.service, task="shop.add") == 2)


def test_tasks_that_outlast_the_broker_are_warned_of(publish, late, prefork):
    """Time limits and etas beyond the visibility timeout run twice: the worker says so (C17)."""
    publish(late.queue, "send(work, countdown=100)")
    assert late.wait_for("with acks_late").endswith(
        "these tasks may run longer than the 25 s after which the broker delivers them again:"
        " shop.soft (30 s); raise broker_transport_options['visibility_timeout'] above their"
        " time limits"
    )
    assert late.wait_for("is to run in").startswith("otelier: shop.work is to run in ")
    assert "visibility" not in prefork.text


def test_hostile_arguments_change_nothing(sink, publish, prefork):
    """Arguments whose own methods raise, huge ones and odd ones neither stop a task nor a publish."""
    (task_id, other) = publish(
        prefork.queue,
        "send(hostile, kwargs={'value': 'x' * 200_000, 'tenant_id': ['no', 'id']});"
        "send(hostile, kwargs={'value': {'a\\n': '\\x00\\ud800'.encode('utf-8','replace').decode()},"
        " 'tenant_id': 't\\n' * 400})",
    )
    assert sink.told(task_id, "succeeded") == ["started", "succeeded"]
    assert "tenant.id" not in sink.event(task_id, "succeeded")["attributes"]
    sink.told(other, "succeeded")
    assert len(sink.event(other, "succeeded")["attributes"]["tenant.id"]) == 256


def test_metrics_have_few_labels_and_buckets_in_seconds(sink, ids, prefork):
    """Duration, wait and outcomes: task, queue, state, error.type; seconds with own buckets (C01)."""
    service = prefork.service

    def outcomes(task, **labels):
        return sink.total("celery.task.outcomes", service, task=task, **labels)

    def told(word, task):
        return sum(
            record["event"].endswith(word) and record["attributes"]["celery.task.name"] == task
            for record in sink.events(service=service)
        )

    sink.wait(lambda: outcomes("shop.expected", state="FAILURE", error="KeyError") == 1)
    sink.wait(lambda: outcomes("shop.flaky", state="RETRY") == told("retried", "shop.flaky") >= 5)
    sink.wait(lambda: outcomes("shop.reject", state="REJECTED") == 1)
    sink.wait(lambda: outcomes("shop.add", state="REVOKED", error="expired") == 1)
    sink.wait(lambda: sink.total("celery.task.active", service) == 0)
    mine = [point for point in sink.points if point["service"] == service]
    labels = {
        name: {key for point in mine if point["name"] == name for key in point["attributes"]}
        for name in ("messaging.process.duration", "celery.task.wait.duration")
    }
    assert labels == {
        "messaging.process.duration": {
            *("messaging.system", "messaging.operation.name", "messaging.destination.name"),
            *("celery.task.name", "celery.task.state", "error.type"),
        },
        "celery.task.wait.duration": {"messaging.destination.name", "celery.task.name"},
    }
    bounds = {
        point["name"]: (point["unit"], point["bounds"][0], point["bounds"][-1])
        for point in mine
        if point["name"] in labels
    }
    assert bounds == {
        "messaging.process.duration": ("s", 0.005, 3600.0),
        "celery.task.wait.duration": ("s", 0.05, 1800.0),
    }


def test_active_tasks_are_counted_while_they_run(sink, publish, prefork):
    """A running task is one active task, and none when it has ended."""
    (task_id,) = publish(prefork.queue, "send(work, 2.5)")
    service = prefork.service
    sink.wait(lambda: sink.total("celery.task.active", service, task="shop.work") == 1)
    sink.told(task_id, "succeeded")
    sink.wait(lambda: sink.total("celery.task.active", service, task="shop.work") == 0)


def test_a_hard_time_limit_is_told_once_by_the_parent(sink, killed, prefork):
    """The child is killed; started is there, and failed comes once, with ids and duration (C08)."""
    task_id = killed["hard"]
    sink.told(task_id, "failed")
    sink.told(killed["die"], "lost")  # time for a second record to arrive
    assert sink.story(task_id) == ["started", "failed"]
    facts = sink.event(task_id, "failed")["attributes"]
    assert facts["error.type"] == "billiard.exceptions.TimeLimitExceeded"
    assert (facts["celery.task.state"], facts["tenant.id"]) == ("FAILURE", "t-hard")
    assert facts["operation.execution_time_ms"] >= 1000
    assert sink.event(task_id, "failed")["trace_id"] == sink.sends(task_id)[0]["trace_id"]
    labels = {"task": "shop.hard", "state": "FAILURE"}
    for name in ("celery.task.outcomes", "messaging.process.duration"):
        sink.wait(lambda name=name: sink.total(name, prefork.service, **labels) == 1)


def test_a_lost_process_is_told_by_the_parent(sink, killed, prefork):
    """A child that leaves by os._exit: the task was seen to start, and is lost, once (C09)."""
    task_id = killed["die"]
    assert sink.told(task_id, "lost") == ["started", "lost"]
    lost = sink.event(task_id, "lost")
    assert lost["level"] == "ERROR"
    facts = lost["attributes"]
    assert facts["error.type"] == "billiard.exceptions.WorkerLostError"
    assert facts["exception.message"].startswith("Worker exited prematurely")
    assert (facts["celery.task.name"], facts["tenant.id"]) == ("shop.die", "t-die")
    assert facts["operation.execution_time_ms"] >= 400
    assert [record["message"] for record in sink.lines(task_id)] == ["about to die"]
    labels = {"task": "shop.die", "error": "billiard.exceptions.WorkerLostError"}
    sink.wait(lambda: sink.total("celery.task.outcomes", prefork.service, **labels) == 1)


def test_a_terminated_task_is_revoked_once(sink, killed, publish, prefork):
    """`revoke(terminate=True)` kills the child; started and revoked are told, nothing else."""
    task_id = killed["terminated"]
    sink.told(task_id, "started")
    publish(prefork.queue, f"app.control.revoke({task_id!r}, terminate=True, signal='SIGKILL')")
    assert sink.told(task_id, "revoked") == ["started", "revoked"]
    assert sink.event(task_id, "revoked")["attributes"]["celery.task.reason"] == "terminated"
    # a task behind it shows that the child's end was seen
    (behind,) = publish(prefork.queue, "send(add, 5, 5)")
    sink.told(behind, "succeeded")
    assert sink.story(task_id) == ["started", "revoked"]


def test_a_lost_task_that_goes_back_is_lost_and_redelivered(sink, publish, prefork, tmp_path):
    """With reject_on_worker_lost Celery sends no signal; the loss is told, then the second run."""
    flag = tmp_path / "died"
    (task_id,) = publish(prefork.queue, f"send(die_once, {os.fspath(flag)!r})")
    assert sink.told(task_id, "succeeded") == [
        *("started", "lost"),
        *("received", "started", "succeeded"),
    ]
    assert sink.event(task_id, "lost")["attributes"]["celery.task.requeued"] is True
    received = sink.event(task_id, "received")
    assert received["level"] == "WARN"
    assert received["attributes"]["celery.task.redelivered"] is True
    assert sink.event(task_id, "succeeded")["attributes"]["celery.task.redelivered"] is True
    sink.wait(
        lambda: sink.total("celery.task.redeliveries", prefork.service, task="shop.die_once") == 1
    )
