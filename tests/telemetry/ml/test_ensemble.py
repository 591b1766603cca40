"""Ensemble: a blended score with all its parts on span, event and metrics, and checked."""

import asyncio
from decimal import Decimal

import numpy as np
import pytest
from dirty_equals import IsFloat

import telemetry
from telemetry import ml
from telemetry.errors import ConfigError

SECONDS = IsFloat(ge=0)
WALLET = "0x52908400098527886E0F7030069857D2E4169EE7"
MODEL = {
    "risk.model.name": "wallet-risk",
    "risk.model.version": "2025-10",
    "risk.ruleset.version": "r7",
}
WEIGHTS = {"risk.weight.rule_based": 0.6, "risk.weight.ml": 0.4}


def ensemble(**options):
    declared = {
        "weights": {"rule_based": 0.6, "ml": 0.4},
        "scale_max": 10_000,
        "bands": {"LOW": 3000, "MEDIUM": 6000, "HIGH": 10_000},
        "model": "wallet-risk",
        "version": "2025-10",
        "ruleset": "r7",
    }
    return ml.Ensemble(**{**declared, **options})


def events(captured, *names):
    """Attributes of the events of these names, without uid and duration."""
    return [
        {
            key: value
            for key, value in record["attributes"].items()
            if key not in ("log.record.uid", "risk.evaluation.duration_s")
        }
        for record in captured.logs
        if record.get("event") in names
    ]


def points(captured, name):
    return [
        (
            {key: value for key, value in point["attributes"].items() if key not in MODEL},
            point.get("sum", point.get("value")),
        )
        for point in captured.metrics
        if point["name"] == name
    ]


def test_the_whole_evaluation(captured):
    """R3: members, weights, blend, adjustment, confidence, band and versions, on all signals."""
    scores = ensemble()
    with scores.evaluate(subject=WALLET, chain="eth", tenant_id="t-1") as e:
        e.member("rule_based", Decimal(4200))
        e.member("ml", np.float32(4800), confidence=np.float64(0.92))
        e.rule("no_defi", "young_wallet")
        e.blend = 4440
        e.adjust("no DeFi engagement", 4500)
    assert (e.final, e.blend, e.band, e.confidence, e.fallback) == (
        4500.0,
        4440.0,
        "MEDIUM",
        0.92,
        "none",
    )
    told = {
        **MODEL,
        **WEIGHTS,
        "chain": "eth",
        "tenant.id": "t-1",
        "risk.subject.id": ml.pseudonym(WALLET),
        "risk.score.rule_based": 4200.0,
        "risk.score.ml": 4800.0,
        "risk.score.ensemble": 4440.0,
        "risk.score.final": 4500.0,
        "risk.score.scale_max": 10_000.0,
        "risk.confidence": 0.92,
        "risk.band": "MEDIUM",
        "risk.fallback": "none",
        "risk.rules.fired": ["no_defi", "young_wallet"],
        "risk.adjustments": ["no DeFi engagement -> 4500"],
    }
    assert captured.spans == [
        {
            "name": "evaluate risk.score",
            "trace_id": 1,
            "span_id": 1,
            "parent_id": None,
            "start": 1,
            "end": 3,
            "kind": "INTERNAL",
            "status": "UNSET",
            "attributes": {**told, "risk.evaluation.duration_s": SECONDS},
        }
    ]
    (record,) = captured.logs
    uid = record["attributes"].pop("log.record.uid")
    assert record == {
        "time": 2,
        "level": "INFO",
        "logger": "telemetry.ml",
        "message": "Risk score 4500 MEDIUM "
        "[rule_based=4200, ml=4800, ensemble=4440, no DeFi engagement -> 4500]",
        "trace_id": 1,
        "span_id": 1,
        "event": "risk.score.evaluated",
        "attributes": {**told, "risk.evaluation.duration_s": SECONDS},
    }
    assert len(uid) == 32
    plain = {"risk.fallback": "none"}
    assert points(captured, "risk.score.value") == [
        ({**plain, "risk.component": "rule_based"}, 4200.0),
        ({**plain, "risk.component": "ml"}, 4800.0),
        ({**plain, "risk.component": "ensemble"}, 4440.0),
        ({**plain, "risk.component": "final"}, 4500.0),
    ]
    assert points(captured, "risk.score.divergence") == [(plain, 600.0)]
    assert points(captured, "risk.confidence.value") == [(plain, 0.92)]
    assert points(captured, "risk.evaluation.duration") == [
        ({**plain, "risk.band": "MEDIUM"}, SECONDS)
    ]
    assert WALLET[2:] not in str((captured.spans, captured.logs, captured.metrics))


def test_on_the_running_span(captured):
    """R3: with new_span=False the attributes go to the span that runs, and no span is added."""
    with (
        telemetry.span("score"),
        ensemble(subjects="shortened").evaluate(subject=WALLET, new_span=False) as e,
    ):
        e.member("rule_based", 1000)
        e.member("ml", 2000)
    (span,) = captured.spans
    kept = ("risk.score.final", "risk.band", "risk.subject.id")
    assert (span["name"], *(span["attributes"][key] for key in kept)) == (
        "score",
        1400.0,
        "LOW",
        "0x52908400...",
    )


@pytest.mark.parametrize(
    ("tell", "fallback", "blend"),
    [
        (lambda e: e.member("rule_based", 4200), "ml_unavailable", 4200.0),
        (lambda e: e.member("ml", 4800), "rules_unavailable", 4800.0),
        (
            lambda e: (e.member("rule_based", 4200), e.missing("ml", TimeoutError())),
            "ml_timeout",
            4200.0,
        ),
        (lambda e: (e.member("rule_based", 1), e.missing("ml", "timeout")), "ml_timeout", 1.0),
        (lambda e: (e.member("rule_based", 1), e.missing("ml", ValueError())), "ml_unavailable", 1),
        (
            lambda e: (e.member("ml", 9), e.member("rule_based", float("nan"))),
            "rules_unavailable",
            9,
        ),
        (lambda e: e.missing("ml"), "all_unavailable", None),
    ],
)
def test_a_missing_member(captured, tell, fallback, blend):
    """R3: the weight of a missing member goes to the others, and the fallback says which and why."""
    with ensemble().evaluate() as e:
        tell(e)
    (told,) = events(captured, "risk.score.evaluated")
    assert (e.final, e.fallback) == (blend, fallback)
    assert (told.get("risk.score.final"), told["risk.fallback"]) == (blend, fallback)
    assert told.get("error.type") == (None if blend else "no_score")
    labels = {"risk.fallback": fallback}
    expected = [(labels | {"risk.component": "final"}, blend)] if blend else []
    assert points(captured, "risk.score.value")[-1:] == expected


@pytest.mark.parametrize(
    ("blend", "cause", "weight"),
    [
        (4200, "silent_fallback", 0.0),
        (4800, "silent_fallback", 1.0),
        (4500, "weight_drift", 0.5),
        (10_000, "clamped", 9.666667),
    ],
)
def test_a_blend_that_does_not_follow_from_the_weights(captured, blend, cause, weight):
    """R3: weight drift, silent fallback and clamping are told apart by an event."""
    with ensemble().evaluate() as e:
        e.member("rule_based", 4200)
        e.member("ml", 4800)
        e.blend = blend
    assert e.final == blend
    (evaluated,) = events(captured, "risk.score.evaluated")
    assert events(captured, "risk.ensemble.mismatch") == [
        {
            **evaluated,
            "risk.ensemble.expected": 4440.0,
            "risk.ensemble.residual": blend - 4440.0,
            "risk.ensemble.effective_weight": weight,
            "risk.ensemble.cause": cause,
        }
    ]


@pytest.mark.parametrize("blend", [4440, 4441, 4439, Decimal("4440.4"), float("nan"), "many", None])
def test_rounding_is_no_mismatch(captured, blend):
    """R3: within one point the arithmetic holds, and a threshold after the blend is no drift."""
    with ensemble().evaluate() as e:
        e.member("rule_based", 4200)
        e.member("ml", 4800)
        e.blend = blend
        e.adjust("no DeFi engagement", 9000)
    assert events(captured, "risk.ensemble.mismatch") == []


def test_members_too_close_give_no_weight(captured):
    """Within 1 % of the scale an effective weight would be noise, so none is told."""
    with ensemble().evaluate() as e:
        e.member("rule_based", 4200)
        e.member("ml", 4299)
        e.blend = 4290
    (told,) = events(captured, "risk.ensemble.mismatch")
    assert "risk.ensemble.effective_weight" not in told
    assert told["risk.ensemble.cause"] == "weight_drift"


def score(scores, subject, value):
    with scores.evaluate(subject=subject) as e:
        e.member("rule_based", value)
        e.member("ml", value)
    return e


def test_a_change_of_band_is_told(captured):
    """R3: a subject that comes back in another band is an event and a count, others are not."""
    scores = ensemble()
    for subject, value in (("a", 1000), ("b", 1000), ("a", 2000), ("a", 7000), ("a", 7100)):
        score(scores, subject, value)
    assert events(captured, "risk.band.changed") == [
        {
            **MODEL,
            "risk.subject.id": ml.pseudonym("a"),
            "risk.score.final": 7000.0,
            "risk.score.scale_max": 10_000.0,
            "risk.band_from": "LOW",
            "risk.band_to": "HIGH",
        }
    ]
    assert points(captured, "risk.band.transitions") == [
        ({"risk.band_from": "LOW", "risk.band_to": "HIGH"}, 1)
    ]


def test_the_memory_of_bands_is_bounded(captured):
    """Ten thousand subjects are remembered, and the one not seen longest is forgotten first."""
    scores = ensemble()
    for number in range(10_000):
        scores.moved(number, "LOW")
    scores.moved(0, "LOW")
    scores.moved("one more", "LOW")
    assert [scores.moved(number, "HIGH") for number in (0, 2, 1)] == ["LOW", "LOW", None]


def test_bands_end_with_their_edge():
    """A score on an edge is in the band below, as a histogram's bucket has it."""
    scores = ensemble()
    assert [scores.band(value) for value in (-1, 0, 3000, 3000.1, 6000, 10_000, 99_999)] == [
        *("LOW", "LOW", "LOW", "MEDIUM", "MEDIUM", "HIGH", "HIGH")
    ]


def test_an_exception_is_recorded_once_and_passes(captured):
    """R1: the application's exception comes out; span, event and metric have its error.type."""
    problem = RuntimeError("chain data is gone")

    def calculate():
        with ensemble().evaluate(subject=WALLET) as e:
            e.member("rule_based", 4200)
            raise problem

    with pytest.raises(RuntimeError) as caught:
        calculate()
    assert caught.value is problem
    assert [(record["event"], record["level"]) for record in captured.logs] == [
        ("risk.evaluation.exception", "ERROR"),
        ("risk.score.evaluated", "INFO"),
    ]
    assert captured.logs[0]["attributes"]["exception.message"] == "chain data is gone"
    assert captured.spans[0]["status"] == "ERROR"
    assert events(captured, "risk.score.evaluated")[0]["error.type"] == "RuntimeError"
    assert points(captured, "risk.score.value") == []
    assert [labels["error.type"] for labels, _ in points(captured, "risk.evaluation.duration")] == [
        "RuntimeError"
    ]


class Hostile:
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __hash__ = __len__ = __iter__ = __float__ = __bool__ = __str__


def test_hostile_values(captured):
    """R1, R3: whatever is told, nothing is raised and the rest of the evaluation stands."""
    bad = Hostile()
    with ensemble().evaluate(subject=bad, field=bad) as e:
        e.member(bad, 1)
        e.member("unknown", 1)
        e.member("ml", bad, confidence=bad)
        e.member("rule_based", np.int64(4200), confidence=float("inf"))
        e.missing(bad, bad)
        e.adjust(bad, bad)
        e.adjust(bad, 5000)
        e.rule(bad)
        e.confidence = bad
        e.blend = bad
    e.member("ml", 1)  # too late
    assert events(captured, "risk.score.evaluated") == [
        {
            **MODEL,
            **WEIGHTS,
            "field": "<unprintable Hostile>",
            "risk.subject.id": ml.pseudonym(bad),
            "risk.score.rule_based": 4200.0,
            "risk.score.ensemble": 4200.0,
            "risk.score.final": 5000.0,
            "risk.score.scale_max": 10_000.0,
            "risk.band": "MEDIUM",
            "risk.fallback": "ml_unavailable",
            "risk.rules.fired": ["<unprintable Hostile>"],
            "risk.adjustments": ["<unprintable Hostile> -> 5000"],
        }
    ]


@pytest.mark.anyio
async def test_a_hundred_at_once_do_not_mix(captured):
    """R2: one ensemble, a hundred interleaved analyses, sync calculators in threads: no mixing."""
    scores = ensemble()
    together = asyncio.Barrier(100)

    def calculate(number):
        e = ml.current_evaluation()
        e.member("ml", number * 100, confidence=number / 100)

    async def analyse(number):
        async with scores.evaluate(subject=f"w{number}") as e:
            await together.wait()
            e.member("rule_based", number * 100)
            await asyncio.to_thread(calculate, number)
            await together.wait()
        return e.final

    finals = await asyncio.gather(*(analyse(number) for number in range(100)))
    assert finals == [number * 100.0 for number in range(100)]
    keys = ("risk.subject.id", "risk.score.rule_based", "risk.score.ml", "risk.confidence")
    found = {tuple(told[key] for key in keys) for told in events(captured, "risk.score.evaluated")}
    assert found == {
        (ml.pseudonym(f"w{number}"), number * 100.0, number * 100.0, number / 100)
        for number in range(100)
    }
    own = {span["span_id"]: span["attributes"]["risk.score.final"] for span in captured.spans}
    assert sorted(own.values()) == sorted(finals)


def test_without_an_evaluation_nothing_is_recorded(captured):
    """R2: a calculator that is called outside of an evaluation works as before."""
    e = ml.current_evaluation()
    e.member("ml", 4800)
    e.adjust("no DeFi engagement", 4500)
    e.rule("no_defi")
    assert (captured.spans, captured.logs, captured.metrics) == ([], [], [])


def test_labels_of_metrics_are_chosen(captured):
    """Only the ids and fields that the ensemble lists label its metrics."""
    scores = ensemble(labels=("tenant_id", "chain"))
    with (
        telemetry.log_context(tenant_id="t-1", user_id="u-1"),
        scores.evaluate(chain="eth", block=7) as e,
    ):
        e.member("rule_based", 100)
        e.member("ml", 100)
    assert points(captured, "risk.score.divergence") == [
        ({"risk.fallback": "none", "tenant.id": "t-1", "chain": "eth"}, 0.0)
    ]


def test_a_watching_member_has_no_weight(captured):
    """A member of weight 0 is recorded and does not move the blend or count as missing."""
    scores = ensemble(weights={"rule_based": 0.6, "ml": 0.4, "ml_next": 0})
    with scores.evaluate() as e:
        e.member("rule_based", 4200)
        e.member("ml", 4800)
    assert (e.final, e.fallback) == (4440.0, "none")
    with scores.evaluate() as e:
        e.member("ml_next", 9000)
        e.member("rule_based", 4200)
        e.member("ml", 4800)
    assert e.final == 4440.0
    assert events(captured, "risk.score.evaluated")[1]["risk.score.ml_next"] == 9000.0


def test_confidence_in_percent():
    """The declared scale makes ratios; without members' it can be assigned."""
    with ensemble(confidence_max=100).evaluate() as e:
        e.member("rule_based", 4200, confidence=80)
        e.member("ml", 4800, confidence=92.5)
    assert e.confidence == 0.85
    with ensemble().evaluate() as e:
        e.confidence = 0.5
    assert e.confidence == 0.5


def test_a_declaration_that_cannot_work_is_refused():
    """All problems of a declaration are in one error, each with its fix; nothing later raises."""
    with pytest.raises(ConfigError) as caught:
        ensemble(
            weights={"rule_based": 0.6, "ml": 0.6, "Final": 0, "final": 0},
            bands={"LOW": 3000, "HIGH": 9000},
            confidence_max=0,
            tolerance=-1,
            subjects="open",
        )
    weights = "weights={'rule_based': 0.6, 'ml': 0.6, 'Final': 0, 'final': 0}"
    assert caught.value.problems == [
        "weights: 'Final' cannot be a member's name; use a word such as rule_based or ml",
        "weights: 'final' cannot be a member's name; use a word such as rule_based or ml",
        f"{weights}: they add up to 1.2, and should add up to 1",
        "bands={'LOW': 3000, 'HIGH': 9000}: the last band ends the scale; give 'HIGH' 10000",
        "confidence_max=0: give 1, or 100 for percent",
        "tolerance=-1: give points of the scale, 0 or more",
        "subjects='open': give one of hashed, shortened, plain",
    ]


@pytest.mark.parametrize(
    "bad",
    [
        {"weights": {}},
        {"weights": {"ml": -1, "rule_based": 2}},
        {"weights": {"ml": float("nan")}},
        {"scale_max": 0},
        {"scale_max": "high"},
        {"bands": {}},
        {"bands": {"LOW": 5000, "HIGH": 5000}},
        {"bands": {"LOW": -1, "HIGH": 10_000}},
    ],
)
def test_each_bad_declaration_is_one_problem(bad):
    """One mistake is one problem."""
    with pytest.raises(ConfigError) as caught:
        ensemble(**bad)
    assert len(caught.value.problems) == 1


def test_buckets_lie_on_the_band_edges(run, receiver):
    """R3: 20 equal steps and every band edge are bucket ends; the scope spells the bands out."""
    run(
        """
        import telemetry
        from telemetry import ml
        telemetry.configure()
        for name, top in (("a", 10_000), ("b", 1)):
            scores = ml.Ensemble(weights={"ml": 1}, scale_max=top, name=name,
                                 bands=[("LOW", 0.33 * top), ("HIGH", top)])
            with scores.evaluate() as e:
                e.member("ml", 0.33 * top)
        telemetry.flush()
        """,
        endpoint=receiver.url,
    )
    found = {}
    for path, message in receiver.requests:
        for scope in message.resource_metrics[0].scope_metrics if path == "/v1/metrics" else ():
            for metric in scope.metrics:
                if metric.name == "risk.score.value":
                    bands = scope.scope.attributes[0].value.string_value
                    for point in metric.histogram.data_points:
                        counts = list(point.bucket_counts)
                        found[bands] = (list(point.explicit_bounds), counts.index(1))
    steps = [500.0 * step for step in range(1, 21)]
    small = [round(0.05 * step, 9) for step in range(1, 21)]
    assert found == {
        "LOW <= 3300, HIGH <= 10000": (sorted([*steps, 3300.0]), 6),
        "LOW <= 0.33, HIGH <= 1": (sorted([*small, 0.33]), 6),
    }


def test_the_score_is_right_without_telemetry(run):
    """R1: a program that never set telemetry up computes the same score."""
    done = run(
        """
        from telemetry import ml
        scores = ml.Ensemble(weights={"rule_based": 0.6, "ml": 0.4}, scale_max=10_000,
                             bands={"LOW": 3000, "HIGH": 10_000})
        with scores.evaluate(subject="w") as e:
            e.member("rule_based", 4200)
            e.member("ml", 4800)
        print(e.final, e.band)
        """
    )
    assert (done.stdout, done.stderr) == ("4440.0 HIGH\n", "")


def test_a_watching_member_never_decides():
    """Issue 19.6: without a weighted member there is no score, no band and no confidence."""
    scores = ensemble(weights={"rule_based": 1.0, "shadow": 0.0})
    with scores.evaluate() as e:
        e.member("shadow", 9500, confidence=0.9)
    assert (e.final, e.band, e.confidence, e.fallback) == (None, None, None, "all_unavailable")


@pytest.mark.parametrize(("top", "off"), [(1, 0.05), (100, 5), (10_000, 500)])
def test_the_check_of_the_arithmetic_knows_the_scale(captured, top, off):
    """Issue 19.6: a blend that is off by 5 % of the scale is a mismatch on each scale; rounding is none."""
    scores = ensemble(scale_max=top, bands={"LOW": top / 2, "HIGH": top})
    for blend in (0.6 * 0.4 * top + 0.4 * 0.9 * top + off, 0.6 * 0.4 * top + 0.4 * 0.9 * top):
        with scores.evaluate() as e:
            e.member("rule_based", 0.4 * top)
            e.member("ml", 0.9 * top)
            e.blend = blend
    assert [
        event["risk.ensemble.residual"] for event in events(captured, "risk.ensemble.mismatch")
    ] == [pytest.approx(off)]


def test_equal_scores_have_one_band():
    """Issue 19.6: 0.1 + 0.2 is in the band that ends with 0.3, computed, given or adjusted."""
    scores = ensemble(scale_max=1, bands={"LOW": 0.3, "HIGH": 1})
    found = []
    for give in (
        lambda e: [e.member(name, 0.1 + 0.2) for name in ("rule_based", "ml")],
        lambda e: setattr(e, "blend", 0.1 + 0.2),
        lambda e: e.adjust("rule", 0.1 + 0.2),
    ):
        with scores.evaluate() as e:
            give(e)
        found.append((e.final, e.band))
    assert found == [(0.3, "LOW")] * 3
