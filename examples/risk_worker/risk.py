"""
The risk calculator: rules, a model, and the ensemble of both. Synchronous, and knows no event loop.

It records its own timing and scores where they come about; nobody carries a dict of metrics from
here to the handler. The model is a small network with fixed weights: real arithmetic, in pure
Python, so that the example needs no further package.
"""

import math
from collections.abc import Callable

from telemetry import get_logger, ml

logger = get_logger("risk_worker.risk")

Activity = dict[str, float]

RULES: dict[str, tuple[int, Callable[[Activity], bool]]] = {  # name -> (points, applies)
    "young_wallet": (1500, lambda a: a["age_days"] < 30),
    "few_transactions": (900, lambda a: a["transactions"] < 20),
    "low_balance": (600, lambda a: a["balance_eth"] < 0.1),
    "no_defi": (1200, lambda a: a["defi_protocols"] == 0),
    "mixer_contact": (3500, lambda a: a["mixer_transfers"] > 0),
}
BASE_POINTS = 1500
NO_DEFI_FLOOR = 4500

SCALES = {
    "age_days": 400.0,
    "transactions": 500.0,
    "balance_eth": 5.0,
    "defi_protocols": 6.0,
    "mixer_transfers": 2.0,
}
HIDDEN = [  # one row of weights per hidden unit, in the order of SCALES, then the bias
    [-1.6, -1.1, -0.5, -1.3, 1.9, 0.8],
    [-0.4, -0.9, -0.2, -1.8, 2.4, 0.3],
    [-2.1, -0.3, -0.8, -0.4, 0.9, 1.1],
]
OUTPUT = [1.3, 1.7, 0.9, -0.6]

scores = ml.Ensemble(
    weights={"rule_based": 0.6, "ml": 0.4},
    scale_max=10_000,
    bands={"LOW": 3000, "MEDIUM": 6000, "HIGH": 10_000},
    model="wallet-risk",
    version="ensemble-v1.0",
    ruleset="2025-10",
    labels=("chain",),
)


def calculate(wallet: str, activity: Activity, chain: str = "ethereum") -> ml.Evaluation:
    """The score of a wallet; without an answer of the model the rules decide alone."""
    with scores.evaluate(subject=wallet, chain=chain) as e:
        e.member("rule_based", rule_score(activity))
        try:
            score, confidence = predict(activity)
            e.member("ml", score, confidence=confidence)
        except (TimeoutError, KeyError) as error:
            e.missing("ml", error)
            logger.warning("model gave no score, rules decide", reason=type(error).__name__)
        if e.blend is not None and activity["defi_protocols"] == 0 and e.blend < NO_DEFI_FLOOR:
            e.adjust("no DeFi engagement", NO_DEFI_FLOOR)
            logger.debug("applied threshold", threshold="no DeFi engagement", score=NO_DEFI_FLOOR)
        logger.info("risk score ensemble", **e.scores, final=e.final)
    return e


def rule_score(activity: Activity) -> int:
    fired = {name: points for name, (points, applies) in RULES.items() if applies(activity)}
    ml.current_evaluation().rule(*fired)
    for name, points in fired.items():
        logger.debug("risk factor", rule=name, points=points)
    return min(BASE_POINTS + sum(fired.values()), 10_000)


@ml.inference(model="wallet-risk", version="ensemble-v1.0")
def predict(activity: Activity) -> tuple[float, float]:
    """Score and confidence of the model."""
    run = ml.current_inference()
    run.batch_size = 1
    with run.stage("features"):
        row = [math.tanh(activity[name] / scale) for name, scale in SCALES.items()]
    with run.stage("predict"):
        if activity.get("model_is_down"):
            raise TimeoutError("no answer from the model within 200 ms")
        units = [math.tanh(sum(map(_product, weights, [*row, 1.0]))) for weights in HIDDEN]
        logit = sum(map(_product, OUTPUT, [*units, 1.0]))
    with run.stage("post"):
        probability = 1 / (1 + math.exp(-logit))
        score = round(10_000 * probability)
        confidence = 0.5 + abs(probability - 0.5)
    run.score, run.confidence = score, confidence
    return score, confidence


def _product(a: float, b: float) -> float:
    return a * b
