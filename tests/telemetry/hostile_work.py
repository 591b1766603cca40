"""
The calls of `telemetry.ml`, `telemetry.llm` and `telemetry.workers` with every hostile value.

Run as a program, as `hostile` is, whose objects these are.
"""

import sys

import hostile

from telemetry import llm, ml, workers

WORKER = workers.Worker("worker_open", group="provider", counters=("own",))
ENSEMBLE = ml.Ensemble(
    weights={"rules": 0.6, "model": 0.4}, scale_max=1000, bands={"low": 400, "high": 1000}
)


def inferred(x):
    with ml.inference(model=x, version=x, role=x, confidence_max=x, k=x) as run:
        with run.stage(x):
            run.score = x
        run.confidence = x


def evaluated(x):
    with ENSEMBLE.evaluate(subject=x, k=x) as evaluation:
        evaluation.member("rules", x, confidence=x)
        evaluation.member(x, 1)
        evaluation.missing("model", x)
        evaluation.adjust(x, x)
        evaluation.rule(x, x)
        evaluation.blend = x
        evaluation.confidence = x


def called(x):
    with llm.call(provider=x, model=x, operation=x, price=x, k=x) as call:
        call.tokens(input=x, output=x)
        call.cost(x, x, source=x)
        call.finish(x)
        call.response(id=x, model=x)
        call.confidence(x)
        call.add(k=x)
        call.input(x)
        call.output(x)
        call.system(x)
        call.fail(x, error_type=x)
        call.reject(x)
        call.fallback_from(x, x)


def ordered(x):
    with WORKER.order(x, user_id=x, symbol=x, order_type=x, headers=x, k=x) as order:
        order.add(k=x)
        with order.timing(x):
            order.count(x)
            order.count("own", x)
        order.retry(x, error=x)
        order.fallback(x, error=x)
        order.pool_error(x, pool=x)
        order.fail(x, error_type=x)
        order.inject(x)


def worked(x):
    WORKER.inject(x)
    WORKER.retry(x, error=x)
    WORKER.fallback(x, error=x)
    WORKER.pool_error(x, pool=x)
    WORKER.statistics()


def chained(x):
    with llm.chain(x) as chain:
        called(x)
        llm.current().add(k=x)
    return chain.tried


def summed(x):
    with llm.run(x) as run:
        called(x)
    return run.totals()


CALLS = {
    "inference": [
        ("with", inferred),
        ("own error", hostile.own_error(lambda x: ml.inference(model=x, k=x))),
    ],
    "Ensemble": [
        ("evaluate", evaluated),
        ("own error", hostile.own_error(lambda x: ENSEMBLE.evaluate(subject=x, k=x))),
    ],
    "current_inference": [("()", lambda _: ml.current_inference())],
    "current_evaluation": [("()", lambda _: ml.current_evaluation())],
    "pseudonym": [("(x)", ml.pseudonym)],
    "shorten": [("(x)", ml.shorten)],
    "psi": [("(x, x)", lambda x: ml.psi(x, x))],
    "call": [
        ("with", called),
        ("own error", hostile.own_error(lambda x: llm.call(provider="p", model=x))),
    ],
    "chain": [("with", chained), ("own error", hostile.own_error(llm.chain))],
    "run": [("with", summed), ("own error", hostile.own_error(llm.run))],
    "current": [("()", lambda _: llm.current())],
    "totals": [("()", lambda _: llm.totals())],
    "Worker": [
        ("order", ordered),
        ("own error", hostile.own_error(WORKER.order)),
        ("calls", worked),
        ("(x)", lambda x: workers.Worker(x, group=x, action=x, counters=x, every_s=x).close()),
    ],
}

if __name__ == "__main__":
    hostile.main(CALLS, sys.argv[1:], ml, llm, workers)
