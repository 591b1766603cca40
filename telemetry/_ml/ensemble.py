"""
`Ensemble`: a score blended from members with weights, recorded whole and checked.

    scores = Ensemble(
        weights={"rule_based": 0.6, "ml": 0.4},
        scale_max=10_000,
        bands={"LOW": 3000, "MEDIUM": 6000, "HIGH": 10_000},
    )

    with scores.evaluate(subject=wallet) as e:
        e.member("rule_based", 4200)
        e.member("ml", 4800, confidence=0.92)
        e.adjust("no DeFi engagement", 4500)
    e.final, e.band          # 4500.0, "MEDIUM"

The evaluation holds the parts, not the calculator: a hundred at once do not mix, and code below
finds the running one by `current_evaluation()`. When the block ends, one span, one event
`risk.score.evaluated` and the histograms say the same. A member that is missing leaves its weight
to the others, visibly. When the application reports the blend that it computed itself (`e.blend =`),
that blend, and not the adjusted score, is compared with what the declared weights give.

`final` is a business value: it is computed without telemetry and is right even if all of it fails.
"""

import contextlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from opentelemetry import trace

from telemetry import _values
from telemetry._ml import metrics, scoring
from telemetry._ml.evaluation import DIGITS, Evaluation
from telemetry._ml.metrics import number, short
from telemetry._redaction import pseudonyms
from telemetry.attributes import (
    RISK_ENSEMBLE_NAME,
    RISK_MODEL_NAME,
    RISK_MODEL_ROLE,
    RISK_MODEL_VERSION,
    RISK_RULESET_VERSION,
)
from telemetry.errors import ConfigError

MEMBER: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
RESERVED: Final = ("ensemble", "final", "scale_max", "bands", "value", "divergence", "evaluated")
SUBJECTS: Final = ("hashed", "shortened", "plain")
TOLERANCE: Final = 1e-4
"""What a blend may be off, as a share of the scale: more than rounding, less than a wrong weight."""
REMEMBERED: Final = 10_000


class Ensemble:
    """
    What is declared about a blended score; make one per kind of score, where the program starts.

    Args:
        weights: member -> weight; they add up to 1. Weight 0 is for a member that only watches.
        scale_max: the highest score; the lowest is 0.
        bands: name -> highest score that is still in the band, in rising order; the last one ends
            with the scale.
        model: the name of the ML member's model, on every span, event and metric.
        version: its version.
        role: `champion` or `challenger`, when two run side by side.
        ruleset: the version of the rules.
        confidence_max: the confidence that means "certain": 100 for a model that gives percent.
        tolerance: how far a blend that the application computed may be from the declared weights, in
            points of the scale; a ten-thousandth of the scale by default.
        subjects: how the subject is sent: `hashed`, `shortened` or `plain`.
        labels: ids or fields (`tenant_id`, `chain`) that also label the metrics; few values each.
        name: distinguishes ensembles of one program.

    Raises:
        ConfigError: the declaration is inconsistent; all problems are listed. Nothing later raises.
    """

    def __init__(
        self,
        *,
        weights: Mapping[str, float],
        scale_max: float,
        bands: Mapping[str, float] | Iterable[tuple[str, float]],
        model: str | None = None,
        version: str | None = None,
        role: str | None = None,
        ruleset: str | None = None,
        confidence_max: float = 1.0,
        tolerance: float | None = None,
        subjects: str = "hashed",
        labels: Sequence[str] = (),
        name: str | None = None,
    ) -> None:
        self.weights: dict[str, float] = dict(weights)
        self.scale_max = scale_max
        self.bands: dict[str, float] = dict(bands)
        self.confidence_max = confidence_max
        default = scale_max * TOLERANCE if number(scale_max) is not None else 0.0
        self.tolerance = default if tolerance is None else tolerance
        self.subjects = subjects
        problems = list(_problems(self))
        if problems:
            raise ConfigError(problems)
        # as plain floats from here on: a Decimal or a numpy scalar would infect the score
        self.weights = {member: float(weight) for member, weight in self.weights.items()}
        self.bands = {band: float(edge) for band, edge in self.bands.items()}
        self.scale_max, self.confidence_max = float(scale_max), float(confidence_max)
        self.tolerance = float(self.tolerance)
        self.labels = tuple(labels)
        given = {
            RISK_MODEL_NAME: model,
            RISK_MODEL_VERSION: version,
            RISK_MODEL_ROLE: role,
            RISK_RULESET_VERSION: ruleset,
            RISK_ENSEMBLE_NAME: name,
        }
        self.attributes = {
            key: _values.text(value, _values.ID_TEXT)
            for key, value in given.items()
            if value is not None
        }
        self._last_bands: dict[str, str] = {}

    def evaluate(
        self, subject: object = None, *, new_span: bool = True, **fields: object
    ) -> Evaluation:
        """
        A block that computes one score: `with ensemble.evaluate(subject=wallet) as e:`.

        Args:
            subject: whom the score is about; it is hashed before it leaves the process.
            new_span: False puts the attributes on the running span instead of a new one.
            fields: of the span and the event; ids by the keywords of `log_context`.
        """
        return Evaluation(self, subject, new_span=new_span, fields=fields)

    def band(self, score: float) -> str:
        """The band that a score lies in; below and above the scale the first and the last."""
        score = round(score, DIGITS)
        return next((name for name, edge in self.bands.items() if score <= edge), [*self.bands][-1])

    def instruments(self) -> metrics.Instruments:
        """What this ensemble measures."""
        return metrics.instruments(tuple(self.bands.items()), self.scale_max)

    def named(self, subject: object) -> str:
        """The subject as it is sent."""
        if self.subjects == "hashed":
            return pseudonyms.pseudonym(subject)
        if self.subjects == "shortened":
            return pseudonyms.shorten(subject)
        return _values.text(subject, _values.ID_TEXT)

    def finish(
        self,
        evaluation: Evaluation,
        current: trace.Span,
        seconds: float,
        error: BaseException | None,
    ) -> None:
        """Record an evaluation that has ended; raises nothing."""
        scoring.finish(evaluation, self, current, seconds, error)

    def moved(self, subject: object, band: str) -> str | None:
        """The band that the subject was in, if it was in another; remembers this one."""
        key = pseudonyms.pseudonym(subject)
        # pop and set are atomic each, and the order of a dict is the order of setting
        before = self._last_bands.pop(key, None)
        self._last_bands[key] = band
        if len(self._last_bands) > REMEMBERED:
            with contextlib.suppress(RuntimeError, StopIteration, KeyError):
                del self._last_bands[next(iter(self._last_bands))]
        return None if before in (None, band) else before


def _problems(ensemble: Ensemble) -> Iterable[str]:
    weights, bands, top = ensemble.weights, ensemble.bands, number(ensemble.scale_max)
    bad = [name for name in weights if not isinstance(name, str) or not MEMBER.fullmatch(name)]
    bad += [name for name in weights if name in RESERVED]
    for name in bad:
        yield f"weights: {name!r} cannot be a member's name; use a word such as rule_based or ml"
    values = [number(weight) for weight in weights.values()]
    if not weights or any(value is None or value < 0 for value in values):
        yield f"weights={weights!r}: give each member a number, 0 or more"
    elif not math.isclose(math.fsum(value or 0.0 for value in values), 1.0, abs_tol=1e-6):
        total = short(math.fsum(value or 0.0 for value in values))
        yield f"weights={weights!r}: they add up to {total}, and should add up to 1"
    if top is None or top <= 0:
        yield f"scale_max={ensemble.scale_max!r}: give the highest score, above 0"
        return
    edges = [number(edge) for edge in bands.values()]
    rising = [edge for edge in edges if edge is not None]
    if not bands or len(rising) < len(edges) or rising != sorted(set(rising)) or rising[0] <= 0:
        yield f"bands={bands!r}: give each band its highest score, rising, above 0"
    elif not math.isclose(rising[-1], top):
        last = [*bands][-1]
        yield f"bands={bands!r}: the last band ends the scale; give {last!r} {short(top)}"
    most, tolerance = number(ensemble.confidence_max), number(ensemble.tolerance)
    if most is None or most <= 0:
        yield f"confidence_max={ensemble.confidence_max!r}: give 1, or 100 for percent"
    if tolerance is None or tolerance < 0:
        yield f"tolerance={ensemble.tolerance!r}: give points of the scale, 0 or more"
    if ensemble.subjects not in SUBJECTS:
        yield f"subjects={ensemble.subjects!r}: give one of {', '.join(SUBJECTS)}"
