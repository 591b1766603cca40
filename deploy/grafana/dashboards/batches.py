"""Batches and calls of language models: what is left, what fails, what it costs."""

from panels import choice, dashboard, lines, logql, logs, prom, quantile, rate, stat, table, traces

ITEMS, BATCH = "batch_items_total", "batch_name"
CHOSEN = {BATCH: "=~$batch"}
FAILED = {**CHOSEN, "batch_item_outcome": "=~failure|timeout"}
CALL, TOKENS = "gen_ai_client_operation_duration_seconds", "gen_ai_client_token_usage"
MODEL = "gen_ai_request_model"
ENDED = '{service_name=~".+"} | event_name="batch.run.finished" | batch_name=~"$batch"'
LINES = logs(
    '{service_name=~".+"} | batch_name=~"$batch" | detected_level=~"warn|error|critical|fatal"'
)
RUNS = logs(ENDED)
TRACES = traces('{span.batch.name=~"${batch:pipe}"}')
CALLS = traces("{span.gen_ai.request.model!=nil}")


DASHBOARD = dashboard(
    "otelier-batches",
    "otelier: batches and LLM cost",
    "Batches by name, and the models that they call.",
    [choice("batch", "batch", f"label_values({ITEMS}, {BATCH})")],
    [
        stat(
            "Items a second",
            "How many are finished.",
            prom(rate(ITEMS, **CHOSEN)),
            unit="reqps",
            links=TRACES,
        ),
        stat(
            "Left",
            "How many items are left of the batches that run.",
            prom('sum(batch_item_remaining{batch_name=~"$batch"})'),
            unit="short",
            links=TRACES,
        ),
        stat(
            "Failed",
            "Which share of the items fails.",
            prom(f"({rate(ITEMS, **FAILED)} or vector(0)) / {rate(ITEMS, **CHOSEN)}"),
            unit="percentunit",
            steps=(0.05, 0.1),
            links=LINES,
        ),
        stat(
            "Cost of the runs that ended",
            "What models took, in this range of time.",
            logql(
                f"sum(sum_over_time({ENDED} | unwrap batch_cost_amount [$__range]))", instant=True
            ),
            unit="currencyUSD",
            links=RUNS,
        ),
        table(
            "Batches",
            "What is left, what is in hand, and how fast it goes.",
            [
                prom(
                    'sum by (batch_name) (batch_item_remaining{batch_name=~"$batch"})', form="table"
                ),
                prom('sum by (batch_name) (batch_item_active{batch_name=~"$batch"})', form="table"),
                prom(
                    'sum by (batch_name) (rate(batch_items_total{batch_name=~"$batch"}[$__range]))',
                    form="table",
                ),
            ],
            width=12,
            unit="short",
            renamed={
                "Value #A": "left",
                "Value #B": "in hand",
                "Value #C": "per second",
                "batch_name": "batch",
            },
            links=TRACES,
        ),
        lines(
            "Items by batch",
            "How fast each batch goes.",
            prom(rate(ITEMS, BATCH, **CHOSEN), "{{batch_name}}"),
            unit="reqps",
            links=TRACES,
        ),
        lines(
            "Items by outcome",
            "How items end.",
            prom(rate(ITEMS, "batch_item_outcome", **CHOSEN), "{{batch_item_outcome}}"),
            unit="reqps",
            stacked=True,
            links=[LINES, TRACES],
        ),
        lines(
            "Attempts for an item",
            "1 is best; more are retries.",
            prom(
                f"{rate('batch_item_attempts_total', BATCH, **CHOSEN)} / {rate(ITEMS, BATCH, **CHOSEN)}",
                "{{batch_name}}",
            ),
            unit="short",
            links=LINES,
        ),
        lines(
            "Time for an item",
            "95 % take less than this.",
            prom(quantile(0.95, "batch_item_duration_seconds", BATCH, **CHOSEN), "{{batch_name}}"),
            unit="s",
            links=TRACES,
        ),
        table(
            "Runs by result",
            "How runs ended, as long as their programs are heard of.",
            prom(
                "sum by (batch_name, batch_run_result) (batch_run_duration_seconds_count"
                '{batch_name=~"$batch"})',
                form="table",
            ),
            width=12,
            unit="short",
            renamed={"Value": "runs", "batch_name": "batch", "batch_run_result": "result"},
            links=RUNS,
        ),
        lines(
            "Tokens by model",
            "What goes in and out, a second.",
            prom(
                rate(f"{TOKENS}_sum", f"{MODEL}, gen_ai_token_type"),
                "{{gen_ai_request_model}} {{gen_ai_token_type}}",
            ),
            unit="short",
            links=CALLS,
        ),
        lines(
            "Time of a call by model",
            "95 % of the answers are there within this.",
            prom(quantile(0.95, CALL, MODEL), "{{gen_ai_request_model}}", exemplars=True),
            unit="s",
            links=CALLS,
        ),
        table(
            "Cost by batch",
            "What each batch took for models, in this range of time.",
            logql(
                f"sum by (batch_name) (sum_over_time({ENDED} | unwrap batch_cost_amount [$__range]))",
                instant=True,
            ),
            width=12,
            unit="currencyUSD",
            renamed={"Value #A": "USD", "batch_name": "batch"},
            links=RUNS,
        ),
        lines(
            "Calls that failed, by model",
            "Calls that ended with an error, and of what kind.",
            prom(
                rate(f"{CALL}_count", f"{MODEL}, error_type", error_type="!="),
                "{{gen_ai_request_model}} {{error_type}} failed",
            ),
            unit="reqps",
            links=traces("{span.gen_ai.request.model!=nil && status=error}"),
        ),
    ],
)
