"""Publishes what it is told: lines of [number, queue, code] on stdin, answers on stdout."""

import json
import sys

import shop
from celery import chain, chord, group

import telemetry

for line in sys.stdin:
    number, queue, code = json.loads(line)
    out = []
    names = {**vars(shop), "chain": chain, "chord": chord, "group": group}
    names |= {"telemetry": telemetry, "Q": queue, "OUT": out}

    def send(task, *args, out=out, queue=queue, **options):
        kwargs = options.pop("kwargs", {})
        sent = task.apply_async(args, kwargs, queue=queue, **options)
        out.append(sent.id)
        return sent

    names["send"] = send
    try:
        exec(code, names)
        telemetry.flush()
        answer = names["OUT"]
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(f"<{number}> {json.dumps(answer)}", flush=True)
