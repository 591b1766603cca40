"""
Machine learning and risk scores: inferences, ensembles, drift.

    from telemetry import ml

    with ml.inference(model="wallet-risk", version="2025-10") as run:
        with run.stage("predict"):
            run.score, run.confidence = model.predict(row)

The public names only; docs/how-to/score-models.md explains them with examples that run.
The code is in `_ml`: `inference` (one call of a model), `ensemble` (a score, declared), `evaluation` (one score),
`scoring` (what is recorded of it), `drift` (from bucket counts), `metrics` (the instruments).
"""

from telemetry._ml.drift import Drift, psi
from telemetry._ml.ensemble import Ensemble
from telemetry._ml.evaluation import Evaluation, current_evaluation
from telemetry._ml.inference import Inference, current_inference, inference
from telemetry._redaction.pseudonyms import pseudonym, shorten

__all__ = [
    "Drift",
    "Ensemble",
    "Evaluation",
    "Inference",
    "current_evaluation",
    "current_inference",
    "inference",
    "pseudonym",
    "psi",
    "shorten",
]
