"""Risk and ML: how scores are spread, whether they move, what models fall back to, and how long they take."""

from panels import (
    bars,
    choice,
    dashboard,
    heat,
    lines,
    logs,
    prom,
    quantile,
    rate,
    stat,
    table,
    traces,
)

SCORE, DONE = "risk_score_value", "risk_evaluation_duration_seconds"
MODEL = {"risk_model_name": "=~$model"}
FINAL = '{risk_component="final",risk_model_name=~"$model"}'
TRACES = traces("{span.risk.score.final!=nil}")
FALLEN = traces('{span.risk.fallback!=nil && span.risk.fallback!="none"}')
EVENTS = logs('{service_name=~".+"} | event_name=~"risk.+"')
BANDS = logs('{service_name=~".+"} | event_name="risk.score.evaluated"')
ALL = f"{rate(DONE + '_count', **MODEL)}"
FALLBACK = {**MODEL, "risk_fallback": "!=none"}


def spread(later: str = "") -> str:
    """Scores in each bucket, now or some time ago."""
    return f"sum by (le) (increase({SCORE}_bucket{FINAL}[$__range]{later}))"


DASHBOARD = dashboard(
    "otelier-risk",
    "otelier: risk and ML",
    "Scores, the models behind them, and whether either has changed.",
    [choice("model", "model", f"label_values({DONE}_count, risk_model_name)")],
    [
        stat(
            "Scores",
            "How many analyses are done.",
            prom(ALL),
            width=6,
            unit="reqps",
            links=TRACES,
        ),
        stat(
            "Fallbacks",
            "Which share of the scores is made without a model.",
            prom(f"({rate(DONE + '_count', **FALLBACK)} or vector(0)) / {ALL}"),
            width=6,
            unit="percentunit",
            steps=(0.02, 0.1),
            links=FALLEN,
        ),
        stat(
            "95 % are done within",
            "How long one analysis in twenty takes at least.",
            prom(quantile(0.95, DONE, **MODEL)),
            width=6,
            unit="s",
            links=TRACES,
        ),
        stat(
            "Rules and model apart",
            "How many points rules and model differ by for one score in ten, at least.",
            prom(quantile(0.9, "risk_score_divergence", **MODEL)),
            width=6,
            unit="short",
            steps=(2000, 3000),
            links=TRACES,
        ),
        heat(
            "Scores",
            "How the scores are spread over time.",
            prom(
                f"sum by (le) (increase({SCORE}_bucket{FINAL}[$__rate_interval]))",
                "{{le}}",
                form="heatmap",
            ),
            unit="short",
            links=TRACES,
        ),
        heat(
            "Scores 7 days ago",
            "The same a week before.",
            prom(
                f"sum by (le) (increase({SCORE}_bucket{FINAL}[$__rate_interval] offset 7d))",
                "{{le}}",
                form="heatmap",
            ),
            unit="short",
            links=TRACES,
        ),
        bars(
            "Scores up to a bound",
            "How many scores of this range of time are at most so high.",
            prom(spread(), "{{le}}"),
            unit="short",
            links=EVENTS,
        ),
        lines(
            "Fallbacks by reason",
            "Why a score is made without a model.",
            prom(
                f"{rate(DONE + '_count', 'risk_fallback', **FALLBACK)} / on() group_left {ALL}",
                "{{risk_fallback}}",
            ),
            unit="percentunit",
            steps=(0.02, 0.1),
            links=FALLEN,
        ),
        lines(
            "Rules and model apart, over time",
            "Points by which they differ: for half of the scores, and for one in twenty.",
            [prom(quantile(q, "risk_score_divergence", **MODEL), f"{q:.0%}") for q in (0.5, 0.95)],
            unit="short",
            links=TRACES,
        ),
        lines(
            "Inference by version",
            "95 % are faster than this; a new version beside the one before.",
            prom(
                quantile(0.95, "risk_inference_duration_seconds", "risk_model_version", **MODEL),
                "{{risk_model_version}}",
                exemplars=True,
            ),
            unit="s",
            links=TRACES,
        ),
        lines(
            "Inference by stage",
            "What an inference spends its time with.",
            prom(
                quantile(
                    0.95,
                    "risk_inference_stage_duration_seconds",
                    "risk_inference_stage_name",
                    **MODEL,
                ),
                "{{risk_inference_stage_name}}",
            ),
            unit="s",
            links=TRACES,
        ),
        lines(
            "Confidence",
            "One score in ten is less certain than this.",
            prom(
                quantile(0.1, "risk_confidence_value", "risk_model_version", **MODEL),
                "{{risk_model_version}}",
            ),
            unit="percentunit",
            links=EVENTS,
        ),
        table(
            "Changes of the band",
            "Subjects whose band is another one than before.",
            prom(
                'sum by (risk_band_from, risk_band_to) (increase(risk_band_transitions_total{risk_model_name=~"$model"}[$__range]))',
                form="table",
            ),
            width=12,
            unit="short",
            renamed={"Value": "times", "risk_band_from": "from", "risk_band_to": "to"},
            links=BANDS,
        ),
    ],
)
