"""
The redaction processor: removes attributes and masks texts, everywhere in the data.

Keys are the OpenTelemetry Collector's; it looks at attributes and log bodies. This one looks at
every text that OTLP has: names, status messages, event names, exception texts (they are attributes
of events and records), links, exemplars, metadata, scope, resource, trace states, and the keys of
attributes themselves.

It fails closed. A value on which a rule raises, or that a pattern needs too long for, is masked as
a whole; one that is nested too deeply is removed. Each is counted, and nothing of the value is
ever logged.
"""

import hmac
from collections.abc import Callable
from typing import Any, Final, Literal

from collector.model import Batch, Consume, Host, Secret, Signal
from collector.otlp import GROUPS, points, resources
from collector.processors.ottl.regex import compiled
from collector.processors.shared.attribute_map import find, put
from collector.processors.shared.redaction_rules import MASK, Report, Rules, RuleSettings, Run
from collector.processors.shared.work import arrived, handed_on, offload

KEY_BYTES: Final = 16
"""The shortest HMAC key that is taken."""


class Redaction:
    """Removes attributes that are not allowed and masks what is blocked."""

    class Config(RuleSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the redaction processor."""

        hash_function: Literal["", "hmac-sha256", "hmac-sha512"] = ""
        """Write a keyed hash instead of `****`, so that equal values stay equal."""
        hmac_key: Secret = Secret()
        """The key of the hash; at least 16 bytes."""
        summary: Literal["debug", "info", "silent"] = "silent"
        """Attributes about what was done: `debug` names and counts, `info` counts."""

        def __post_init__(self) -> None:
            """Check what the types cannot say."""
            if self.hash_function and len(self.hmac_key.encode()) < KEY_BYTES:
                raise ValueError(
                    f"hmac_key must have at least {KEY_BYTES} bytes when hash_function is set; "
                    "read it from the environment: ${env:REDACTION_KEY}"
                )
            if self.hmac_key and not self.hash_function:
                raise ValueError("hmac_key has no use without hash_function")

    mutates = True

    def __init__(self, config: Config, host: Host, next: Consume) -> None:  # noqa: A002 - the word of the protocol
        self.config = config
        self.host = host
        self.next = next
        self._rules = Rules(config, masker(config))

    @staticmethod
    def check(config: Config) -> list[str]:
        """What the types cannot say: whether patterns can be used."""
        found = []
        for name in (
            "ignored_key_patterns",
            "blocked_key_patterns",
            "blocked_values",
            "allowed_values",
        ):
            for place, text in enumerate(getattr(config, name)):
                try:
                    compiled(text)
                except ValueError as error:
                    found.append(f"{name}[{place}]: {error}")
        return found

    async def __call__(self, batch: Batch) -> None:
        """Redact the batch and hand it on."""
        amount = arrived(self.host, batch)
        run = await offload(amount, self.redact, batch)
        for kind, number in sorted(run.counts.items()):
            self.host.stats.add(
                "otelier_processor_redacted_values", number, processor=self.host.id, kind=kind
            )
        if run.changed:
            batch.changed()
        handed_on(self.host, batch.signal, amount)
        await self.next(batch)

    # --- the walk ---

    def redact(self, batch: Batch) -> Run:
        """Look at every text of the batch."""
        run = Run()
        _, scopes_name, items_name = GROUPS[batch.signal]
        each = {
            Signal.TRACES: self._span,
            Signal.LOGS: self._record,
            Signal.METRICS: self._metric,
        }[batch.signal]
        summed_up = (
            batch.signal is not Signal.METRICS
        )  # a summary would make other series of points
        for group in resources(batch):
            self._rules.fields(group, ("schema_url",), Report(), run)
            self._attributes(group.resource, Report(), run, summed_up=summed_up)
            for scope in getattr(group, scopes_name):
                self._rules.fields(scope, ("schema_url",), Report(), run)
                report = Report()
                self._rules.fields(scope.scope, ("name", "version"), report, run)
                self._attributes(scope.scope, report, run, summed_up=summed_up)
                for item in getattr(scope, items_name):
                    each(item, run)
        return run

    def _span(self, span: Any, run: Run) -> None:
        report = Report()
        self._rules.fields(span, ("name", "trace_state"), report, run)
        if span.HasField("status"):
            self._rules.fields(span.status, ("message",), report, run, "status.")
        for event in span.events:
            own = Report()
            self._rules.fields(event, ("name",), own, run)
            self._attributes(event, own, run, summed_up=True)
        for link in span.links:
            own = Report()
            self._rules.fields(link, ("trace_state",), own, run)
            self._attributes(link, own, run, summed_up=True)
        self._attributes(span, report, run, summed_up=True)

    def _record(self, record: Any, run: Run) -> None:
        report = Report()
        self._rules.fields(record, ("severity_text", "event_name"), report, run)
        self._attributes(record, report, run, summed_up=True)
        if record.HasField("body"):
            own = Report()
            self._rules.guarded(record.body, "body", own, run, listed=True)
            self._sum_up(record.attributes, own, run, "body.")

    def _metric(self, metric: Any, run: Run) -> None:
        self._rules.fields(metric, ("name", "description", "unit"), Report(), run)
        self._rules.pairs(metric.metadata, Report(), run)
        for point in points(metric):
            self._attributes(point, Report(), run, summed_up=False)
            if "exemplars" in point.DESCRIPTOR.fields_by_name:
                for exemplar in point.exemplars:
                    self._rules.pairs(exemplar.filtered_attributes, Report(), run)

    def _attributes(self, owner: Any, report: Report, run: Run, *, summed_up: bool) -> None:
        """The attributes of a message, and the summary in them."""
        self._rules.pairs(owner.attributes, report, run)
        if summed_up:
            self._sum_up(owner.attributes, report, run)

    # --- the summary ---

    def _sum_up(self, attributes: Any, report: Report, run: Run, part: str = "") -> None:
        """Write attributes about what was done."""
        if self.config.summary == "silent":
            return
        for word in ("redacted", "masked", "allowed", "ignored"):
            names: list[str] = getattr(report, word)
            if not names:
                continue
            run.changed = True
            if self.config.summary == "debug" and word != "ignored":
                self._add_names(attributes, f"redaction.{part}{word}.keys", names)
            name = f"redaction.{part}{word}.count"
            before = find(attributes, name)
            put(attributes, name).int_value = len(names) + (
                before.value.int_value if before is not None else 0
            )

    def _add_names(self, attributes: Any, name: str, names: list[str]) -> None:
        before = find(attributes, name)
        old = before.value.string_value.split(",") if before is not None else []
        put(attributes, name).string_value = ",".join(sorted([*filter(None, old), *names]))


def masker(config: Redaction.Config) -> Callable[[str], str]:
    """What is written in place of a text."""
    if not config.hash_function:
        return lambda _: MASK
    key = config.hmac_key.encode()
    digest = config.hash_function.removeprefix("hmac-")
    return lambda text: hmac.new(key, text.encode(), digest).hexdigest()
