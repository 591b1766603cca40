"""Ids, trace and baggage: from the publisher into the task, its retries and children, and gone after."""

import json

import pytest

IDS = """
with telemetry.log_context(
    tenant_id="t-7", user_id="u-7", correlation_id="c-7", organization_id="o-7", email="x@y.z",
    operation="order.accept", session_id="s-7",
), telemetry.span("request"):
"""
BOUND = {
    "tenant.id": "t-7",
    "user.id": "u-7",
    "correlation.id": "c-7",
    "organization.id": "o-7",
    "session.id": "s-7",
}


def ids_of(record):
    return {key: record["attributes"].get(key) for key in BOUND}


def request_span(sink, task_id):
    """The publisher's span around a publish."""
    (sent,) = [span for span in sink.sends(task_id) if span["service"].startswith("publisher")]
    (found,) = sink.wait(
        lambda: [span for span in sink.spans if span["span_id"] == sent["parent_id"]]
    )
    return sent, found


def test_ids_travel_with_the_message(sink, publish, prefork):
    """The publisher's ids are on the publish, the attempt and each record; nothing else is (C2)."""
    (task_id,) = publish(prefork.queue, IDS + "    send(work, kwargs={'tenant_id': 't-other'})")
    sink.told(task_id, "succeeded")
    sent, request = request_span(sink, task_id)
    (run,) = sink.runs(task_id)
    records = [*sink.events(task_id), *sink.lines(task_id)]
    assert len(records) == 4
    for record in (sent, run, *records):
        assert ids_of(record) == BOUND
        assert record["trace_id"] == request["trace_id"]
    for record in (run, *records):
        assert "email" not in record["attributes"]
        assert record["attributes"]["operation.name"] == "task.shop.work"
    assert (run["parent_id"], sent["parent_id"]) == (sent["span_id"], request["span_id"])
    assert (sent["name"], sent["attributes"]["messaging.operation.name"]) == (
        f"send {prefork.queue}",
        "send",
    )


def test_ids_come_from_the_arguments_when_nobody_has_set_them(sink, publish, prefork):
    """`tenant_id` and `user_id` are read from keyword and positional arguments (C2)."""
    (by_keyword, by_position, bare) = publish(
        prefork.queue,
        "send(work, kwargs={'tenant_id': 't-8', 'user_id': 8}); "
        "send(positional, 'what', 't-9'); send(add, 1, 1)",
    )
    for task_id, tenant, user in ((by_keyword, "t-8", "8"), (by_position, "t-9", None)):
        sink.told(task_id, "succeeded")
        (run,) = sink.runs(task_id)
        for record in (run, *sink.events(task_id), *sink.lines(task_id)):
            facts = record["attributes"]
            assert (facts["tenant.id"], facts.get("user.id")) == (tenant, user)
            assert facts["correlation.id"] == task_id
    sink.told(bare, "succeeded")
    assert "tenant.id" not in sink.event(bare, "succeeded")["attributes"]


@pytest.mark.parametrize("countdown", [0, 0.01])
def test_ids_and_links_survive_retries(sink, publish, prefork, countdown):
    """In auto mode retries are linked traces; tenant and correlation are on each attempt (C4, C05)."""
    (task_id,) = publish(prefork.queue, IDS + f"    send(flaky, 3, countdown={countdown})")
    sink.told(task_id, "succeeded")
    runs = sorted(sink.runs(task_id, 4), key=lambda run: run["attributes"]["celery.task.retries"])
    sends = sink.sends(task_id, 4)
    assert [ids_of(record) for record in (*runs, *sends)] == [BOUND] * 8
    sink.wait(lambda: len(sink.events(task_id)) == 8)
    assert [ids_of(record) for record in sink.events(task_id)] == [BOUND] * 8
    assert len({run["trace_id"] for run in runs}) == 4
    published = {span["span_id"]: span for span in sends}
    assert [bool(run["parent_id"]) for run in runs] == [not countdown, False, False, False]
    for run in runs[1:]:
        ((trace_id, span_id),) = run["links"]
        assert published[span_id]["trace_id"] == trace_id
    # each retry is published from within the attempt before
    before = {run["span_id"] for run in runs}
    assert sum(span["parent_id"] in before for span in sends) == 3


def test_a_tasks_own_mode_wins(sink, publish, prefork):
    """`@app.task(telemetry_mode="link")` makes a linked trace in a worker in auto mode."""
    (task_id,) = publish(prefork.queue, IDS + "    send(linked)")
    (run,) = sink.runs(task_id)
    (sent,) = sink.sends(task_id)
    assert (run["parent_id"], run["links"]) == ("", [(sent["trace_id"], sent["span_id"])])
    assert ids_of(run) == BOUND


def test_chains_groups_and_chords_keep_ids(sink, publish, prefork):
    """Each task of a workflow has the ids; chain steps are children, group members links (C4)."""
    code = f"""
s = lambda task, *args: task.s(*args).set(queue=Q)
{IDS}
    last = chain(s(add, 1, 2), s(add, 3), s(add, 4)).apply_async()
    OUT += [last.parent.parent.id, last.parent.id, last.id]
    body = chord([s(add, 1, 1), s(add, 2, 2)], s(total)).apply_async()
    OUT += [child.id for child in body.parent.children] + [body.id]
"""
    first, second, third, one, two, body = publish(prefork.queue, code)
    for task_id in (first, second, third, one, two, body):
        sink.told(task_id, "succeeded")
        (run,) = sink.runs(task_id)
        assert ids_of(run) == BOUND
    runs = {task_id: sink.runs(task_id)[0] for task_id in (first, second, third, one, two, body)}
    assert len({runs[task_id]["trace_id"] for task_id in (first, second, third)}) == 1
    sends = {span["span_id"]: span for span in sink.spans if span["kind"] == "PRODUCER"}
    for before, after in ((first, second), (second, third)):
        assert sends[runs[after]["parent_id"]]["parent_id"] == runs[before]["span_id"]
        assert runs[after]["attributes"]["celery.task.parent_id"] == before
        assert runs[after]["attributes"]["celery.task.root_id"] == first
    groups = {runs[task_id]["attributes"]["celery.task.group_id"] for task_id in (one, two)}
    assert len(groups) == 1
    assert all(runs[task_id]["links"] and not runs[task_id]["parent_id"] for task_id in (one, two))
    assert (runs[body]["links"], bool(runs[body]["parent_id"])) == ([], True)


def test_children_of_a_task_keep_ids(sink, publish, prefork):
    """A task that publishes passes its ids on; at once as a child, with a countdown as a link."""
    (outer,) = publish(prefork.queue, IDS + "    send(parent, ['kid-now', 'kid-later'])")
    sink.told("kid-later", "succeeded")
    (mother,), (now,), (later,) = (sink.runs(each) for each in (outer, "kid-now", "kid-later"))
    assert ids_of(now) == ids_of(later) == BOUND
    assert (now["trace_id"], now["links"]) == (mother["trace_id"], [])
    ((linked, _),) = later["links"]
    assert (linked, later["parent_id"]) == (mother["trace_id"], "")


def test_headers_do_not_grow_over_retries(sink, publish, prefork):
    """The headers of attempt 10 are those of attempt 2, by name and by size (C14)."""
    code = "r = send(header_size, [], 11); OUT[:] = [r.get(timeout=60)]"
    (sizes,) = publish(prefork.queue, code)
    assert len({json.dumps(size) for size in sizes[1:]}) == 1
    assert len(sizes) == 11


def test_nothing_of_a_task_is_left_for_the_next(publish, prefork, threads, coded):
    """What a task binds is gone when it ends, in prefork, threads and solo pools (C2, C16)."""
    for one in (prefork, threads, coded):
        code = "OUT[:] = [send(scope).get(timeout=60) for _ in range(6)]"
        assert publish(one.queue, code) == [["correlation_id", "operation", "task_id"]] * 6


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_tenants_do_not_mix(sink, publish, pool, request):
    """Forty tasks of eight tenants, interleaved: each record has its own tenant (C2)."""
    code = """
for n in range(40):
    with telemetry.log_context(tenant_id=f"t-{n % 8}", correlation_id=f"c-{n}"):
        send(work, 0.01)
"""
    sent = publish(request.getfixturevalue(pool).queue, code)
    for number, task_id in enumerate(sent):
        sink.told(task_id, "succeeded")
        records = [*sink.events(task_id), *sink.lines(task_id), *sink.runs(task_id)]
        assert len(records) == 5
        assert {
            (record["attributes"]["tenant.id"], record["attributes"]["correlation.id"])
            for record in records
        } == {(f"t-{number % 8}", f"c-{number}")}
        assert len({record["trace_id"] for record in records}) == 1
        started = sink.event(task_id, "started")["attributes"]
        assert started["celery.worker.pool"] == pool


def test_an_eager_task_keeps_its_callers_scope(sink, publish, prefork):
    """`task.apply()` inside a task is a child span in the caller's scope, which is put back."""
    (inner, unchanged) = publish(
        prefork.queue, "OUT[:] = send(eager_outer, task_id='outer-1').get(timeout=60)"
    )
    assert (inner, unchanged) == (7, True)
    (outer,) = sink.runs("outer-1")
    (child,) = sink.wait(
        lambda: [span for span in sink.spans if span["parent_id"] == outer["span_id"]]
    )
    assert (child["name"], child["trace_id"]) == ("process shop.add", outer["trace_id"])
    assert child["attributes"]["correlation.id"] == "outer-1"


def test_a_publish_that_fails_ends_its_span(sink, publish):
    """The caller's error comes through unchanged, and the span of the publish has it (C10)."""
    code = """
try:
    send(add, object(), 1, task_id="never-sent")
except Exception as error:
    OUT.append(type(error).__name__)
"""
    assert publish("away", code) == ["EncodeError"]
    (sent,) = sink.sends("never-sent")
    assert (sent["name"], sent["status"]) == ("send away", "ERROR")
    assert sent["attributes"]["error.type"] == "kombu.exceptions.EncodeError"
