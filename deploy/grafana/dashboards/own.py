"""The collector itself: does everything that came in arrive, and what stands in the way."""

from panels import Json, choice, dashboard, lines, logs, numbers, panel, prom, quantile, stat

SIGNALS = {"spans": "spans", "log_records": "log records", "metric_points": "metric points"}
HERE = 'exporter="$exporter"'
DELIVERY = "docs/how-to/alerts.md#delivery-failures; collector queue ls"
FULL = "docs/how-to/alerts.md#queue-almost-full; collector queue ls"
DEAD = numbers("sum by (exporter, reason) (otelier_exporter_dead_letters_total)")
ATTEMPTS = numbers("sum by (exporter, kind) (rate(otelier_exporter_failed_attempts_total[5m]))")
REFUSALS = numbers("sum by (storage, reason) (rate(otelier_wal_refused_requests_total[5m]))")
WARNINGS = logs('{service_name=~".+"} | detected_level=~"warn|error" | scope_name=~"telemetry.*"')


def maybe(expr: str) -> str:
    """A sum of counters that appear with their first event."""
    return f"(sum({expr}) or vector(0))"


def sums(counter: str, labels: str = "") -> str:
    """A counter of all three signals."""
    return " + ".join(maybe(f"{counter}_{signal}_total{labels}") for signal in SIGNALS)


def by_signal(counter: str, word: str, labels: str = "") -> list[Json]:
    """One line for each signal."""
    return [
        prom(
            f"sum(rate({counter}_{signal}_total{labels}[$__rate_interval])) or vector(0)",
            f"{name} {word}",
        )
        for signal, name in SIGNALS.items()
    ]


ONE = "{" + HERE + "}"
RECEIVED = sums("otelcol_receiver_accepted")
LEAVES = [
    sums("otelcol_exporter_sent", ONE),
    sums("otelcol_exporter_send_failed", ONE),
    maybe("otelier_processor_dropped_items_total"),
    maybe("otelier_wal_deduplicated_items_total"),
    maybe("otelier_exporter_lag_items" + ONE),
]

DASHBOARD = dashboard(
    "otelier-collector",
    "otelier: collector",
    "What comes in, what is stored, what waits, and what was given up.",
    [
        choice(
            "exporter",
            "store",
            "label_values(otelcol_exporter_sent_spans_total, exporter)",
            every=False,
            only="/^(mongodb|sqlite|otlp).*/",
        )
    ],
    [
        stat(
            "Unaccounted for",
            "Received, less what the chosen store took, gave up, dropped, had before, or has yet to take: 0 when it adds "
            f"up, and nothing is on its way. {DELIVERY}",
            prom(f"({RECEIVED}) - ({') - ('.join(LEAVES)})"),
            unit="short",
            links=[DEAD, ATTEMPTS],
        ),
        stat(
            "Received",
            "Items that came in and were acknowledged, a second.",
            prom(
                " + ".join(
                    f"(sum(rate(otelcol_receiver_accepted_{s}_total[$__rate_interval])) or vector(0))"
                    for s in SIGNALS
                )
            ),
            unit="reqps",
            links=numbers(
                "sum by (receiver, transport) (rate(otelcol_receiver_accepted_spans_total[5m]))"
            ),
        ),
        stat(
            "Oldest unsent",
            f"How long the oldest item waits for its store. docs/how-to/alerts.md#store-connection-lost; {DELIVERY}",
            prom("max by (exporter) (otelier_exporter_oldest_unsent_seconds)", "{{exporter}}"),
            unit="s",
            steps=(60, 600),
            links=ATTEMPTS,
        ),
        stat(
            "Dead letters",
            "Items put aside that a store can never keep. docs/how-to/alerts.md#dead-letters; collector dead-letters ls",
            prom(maybe("otelier_exporter_dead_letters_total")),
            unit="short",
            steps=(1, 1),
            links=DEAD,
        ),
        lines(
            "Received by signal",
            "What comes in, a second.",
            by_signal("otelcol_receiver_accepted", "received"),
            unit="reqps",
            links=numbers(
                "sum by (receiver, transport) (rate(otelcol_receiver_accepted_spans_total[5m]))"
            ),
        ),
        lines(
            "Refused by signal",
            f"What is sent back for now; senders keep it. {FULL}",
            by_signal("otelcol_receiver_refused", "refused"),
            unit="reqps",
            links=REFUSALS,
        ),
        lines(
            "Sent by signal",
            "What the chosen store took, a second.",
            by_signal("otelcol_exporter_sent", "sent", ONE),
            unit="reqps",
            links=ATTEMPTS,
        ),
        lines(
            "Failed share by exporter",
            f"Which share of the items an exporter gives up on. {DELIVERY}",
            prom(
                "otelier:exporter_failed:ratio10m or 0 * otelier:exporter_sent:increase10m",
                "{{exporter}}",
            ),
            unit="percentunit",
            steps=(0.05, 0.1),
            links=[DEAD, ATTEMPTS],
        ),
        lines(
            "Waiting",
            "Items that wait for their store.",
            prom("sum by (exporter) (otelier_exporter_lag_items)", "{{exporter}} waiting"),
            unit="short",
            links=ATTEMPTS,
        ),
        lines(
            "Commit to disk",
            "How long write and fsync take for one in a hundred at least: nothing is acknowledged before.",
            prom(quantile(0.99, "otelier_wal_commit_seconds", "storage"), "{{storage}}"),
            unit="s",
            links=numbers("rate(otelier_wal_commits_total[5m])"),
        ),
        panel(
            "bargauge",
            "Queue on disk",
            f"How full the durable queue is; above 90 % requests are refused for now. {FULL}",
            prom(
                "max by (storage) (otelier_wal_bytes / otelier_wal_capacity_bytes)", "{{storage}}"
            ),
            unit="percentunit",
            size=(8, 6),
            steps=(0.8, 0.95),
            links=REFUSALS,
        ),
        panel(
            "stat",
            "Refusing",
            f"1 while requests are refused: the queue or the disk is full. {FULL}",
            prom("max by (storage) (otelier_wal_refusing)", "{{storage}}"),
            unit="short",
            size=(8, 6),
            steps=(1, 1),
            links=REFUSALS,
        ),
        panel(
            "stat",
            "Damage",
            "Parts of the queue that could not be read again; what they held is missing.",
            prom(maybe("otelier_wal_damaged_parts_total")),
            unit="short",
            size=(8, 6),
            steps=(1, 1),
            links=numbers("otelier_wal_missing_records_total"),
        ),
        lines(
            "Memory",
            "Resident memory of the collector's process.",
            prom("otelcol_process_memory_rss_bytes", "{{instance}}"),
            unit="bytes",
            links=numbers("otelcol_exporter_queue_size"),
        ),
        lines(
            "Processor",
            "Cores that the collector uses.",
            prom("rate(otelcol_process_cpu_seconds_total[$__rate_interval])", "{{instance}}"),
            unit="short",
            links=numbers("otelcol_exporter_queue_size"),
        ),
        lines(
            "Applications: delivered share",
            "Which share of its telemetry each program has delivered. docs/how-to/alerts.md#telemetry-lost; telemetry doctor",
            prom("min by (job) (delivery_success_ratio)", "{{job}}"),
            unit="percentunit",
            links=WARNINGS,
        ),
        lines(
            "Applications: unsent",
            "How long the oldest record waits in each program.",
            prom("max by (job) (delivery_unsent_age_seconds)", "{{job}} unsent"),
            unit="s",
            links=WARNINGS,
        ),
    ],
)
