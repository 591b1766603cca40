"""
A batch as a program of its own, for tests that kill, stop and starve it.

Takes one JSON argument. Each start and each end of a handler is one line of the ledger file, so
that tests can see what was really worked on, whatever the batch itself says.
"""

import asyncio
import json
import os
import resource
import sys
import time

from telemetry.batch import BackgroundProcessor, Limits, Retry, Stop

given = json.loads(sys.argv[1])
ledger = os.open(given["ledger"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(word, key):
    os.write(ledger, f"{word} {key}\n".encode())


async def polite(item, ctx):
    note("start", ctx.key)
    ctx.add_cost(0.5, tokens_in=3, tokens_out=1)
    await asyncio.sleep(given.get("sleep", 0.005))
    if item["number"] % 13 == 0:
        raise ValueError(f"no luck with {ctx.key}")
    note("end", ctx.key)
    return {"number": item["number"], "pad": "x" * given.get("pad", 0)}


async def deaf(item, ctx):
    note("start", ctx.key)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            note("deaf", ctx.key)


def blocking(item, ctx):
    note("start", ctx.key)
    time.sleep(3600)


async def busy(item, ctx):
    note("start", ctx.key)
    while True:
        time.sleep(0.01)  # noqa: ASYNC251 - the loop never gets a turn


HANDLERS = {"polite": polite, "deaf": deaf, "blocking": blocking, "busy": busy}

if limit := given.get("file_size"):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

items = [{"number": number} for number in range(given["items"])]
if given.get("reverse"):
    items.reverse()

processor = BackgroundProcessor(
    "leads",
    HANDLERS[given.get("handler", "polite")],
    key=lambda item: f"lead-{item['number']}",
    fingerprint=given.get("fingerprint"),
    concurrency=given.get("concurrency", 8),
    retry=Retry(attempts=2, backoff=(0.0, 0.0), on=TimeoutError),
    deadline=given.get("deadline"),
    limits=Limits(**given.get("limits", {})),
    journal=given.get("journal"),
    fsync=given.get("fsync", "interval"),
    progress_file=given.get("progress"),
    resume=given.get("resume", "unfinished"),
    stop=Stop(grace=given.get("grace", 20.0), cleanup=given.get("cleanup", 0.2)),
    logs=given.get("logs"),
    results=given.get("results"),
    display=given.get("display", "auto"),
)
code = processor.main(items)
if processor.report is not None and (where := given.get("report")):
    told = processor.report
    with open(where, "w") as file:  # noqa: PTH123 - a script of a test
        json.dump(
            {
                "result": told.result,
                "stopped_by": told.stopped_by,
                "exit_code": told.exit_code,
                "total": told.total,
                "counts": told.counts,
                "not_started": told.not_started,
                "interrupted": told.interrupted,
                "unrecorded": told.unrecorded,
                "cost": told.cost.amount,
                "abandoned": told.abandoned,
            },
            file,
        )
sys.exit(code)
