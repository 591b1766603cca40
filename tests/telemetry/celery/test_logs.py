"""Log lines of tasks: each arrives once with its trace, and the console stays what it was."""

import json

WANTED = [
    ("shop.plain", "plain line"),
    ("shop.tasks", "task line"),
    ("celery.redirected", "printed line"),
]


def check_chatter(sink, task_id):
    """Each line of `chatter` arrived once, with the trace of its attempt."""
    sink.told(task_id, "succeeded")
    sink.wait(lambda: len(sink.lines(task_id)) >= 3)
    (run,) = sink.runs(task_id)
    lines = sink.lines(task_id)
    assert sorted((line["logger"], line["message"]) for line in lines) == sorted(WANTED)
    assert {(line["trace_id"], line["span_id"]) for line in lines} == {
        (run["trace_id"], run["span_id"])
    }
    assert {line["attributes"]["correlation.id"] for line in lines} == {task_id}


def console(worker):
    return [line for line in worker.lines if line.endswith(" line")]


def test_default_hijack(sink, publish, prefork):
    """`get_task_logger`, plain loggers and print() are exported; the console has each once (C6)."""
    (task_id,) = publish(prefork.queue, "send(chatter)")
    check_chatter(sink, task_id)
    assert [line.rpartition("] ")[2].rpartition(": ")[2] for line in console(prefork)] == [
        "plain line",
        "task line",
        "printed line",
    ]


def test_without_hijack(sink, publish, worker):
    """With worker_hijack_root_logger=False Celery still gets its console, and we each line (C20)."""
    one = worker("--concurrency=1", HIJACK="0").ready()
    (task_id,) = publish(one.queue, "send(chatter)")
    check_chatter(sink, task_id)
    assert len(console(one)) == 3


def test_info_is_exported_where_nobody_chose_a_level(sink, publish, prefork):
    """Without --loglevel the console shows warnings as ever, and INFO lines are exported."""
    (task_id,) = publish(prefork.queue, "send(work)")
    sink.told(task_id, "succeeded")
    assert [line["message"] for line in sink.lines(task_id)] == ["begin", "end"]
    assert not [line for line in prefork.lines if line.endswith(("begin", "end"))]


def test_a_chosen_level_and_format_hold(sink, publish, worker):
    """--loglevel is obeyed; LOG_FORMAT=json writes each line and each change of state once."""
    one = worker("--concurrency=1", "--loglevel=WARNING", LOG_FORMAT="json").ready()
    quiet, loud, bad = publish(one.queue, "send(work); send(chatter); send(fail)")
    check_chatter(sink, loud)
    sink.told(quiet, "succeeded")
    sink.told(bad, "failed")
    assert sink.lines(quiet) == []
    one.stop()
    records = [json.loads(line) for line in one.lines if line.startswith("{")]
    told = [
        (record["logger_name"], record["message"])
        for record in records
        if record.get("context", {}).get("task_id") == loud
    ]
    assert told == WANTED
    (failed,) = [record for record in records if record.get("context", {}).get("task_id") == bad]
    assert (failed["message"], failed["level"]) == ("Task failed", "ERROR")
    assert failed["exception"]["type"] == "ValueError"
    assert len(failed["trace"]["trace_id"]) == 32
    assert [line for line in one.lines if "raised unexpected" in line] == []


def test_celerys_own_lines_about_tasks_are_not_exported(sink, publish, prefork):
    """Celery's lines on a change of state repeat our records, with the arguments in them."""
    (task_id,) = publish(prefork.queue, "send(hostile, kwargs={'value': 'secret-argument'})")
    sink.told(task_id, "succeeded")
    assert [record for record in sink.logs if "secret-argument" in str(record)] == []
    mine = [record for record in sink.logs if record["service"] == prefork.service]
    told = [record["message"] for record in mine if task_id in str(record["message"])]
    assert told == []
