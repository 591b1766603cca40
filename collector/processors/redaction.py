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
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from collector.model import Batch, Consume, Host, Secret, Signal
from collector.otlp import GROUPS, points, resources
from collector.processors.ottl.regex import Budget, TooSlow, compiled
from collector.processors.shared.attribute_map import (
    DEEPEST,
    arrived,
    find,
    handed_on,
    offload,
    put,
    text_of,
    value_of,
)

MASK: Final = "****"
KEY_BYTES: Final = 16
"""The shortest HMAC key that is taken."""
REMEMBERED: Final = 10_000
"""What was decided about so many attribute keys is kept."""


@dataclass(slots=True, frozen=True)
class Fate:
    """
    What happens to attributes of one name.

    Args:
        ignored: they are not looked at.
        allowed: the allow-list has them.
        masked: their values are masked as a whole.
        shown: the name without what is blocked.
    """

    ignored: bool
    allowed: bool
    masked: bool
    shown: str


@dataclass(slots=True)
class Report:
    """
    What was done to one list of attributes, or to one item.

    Args:
        redacted: keys removed.
        masked: keys whose values were masked, and names of other texts.
        allowed: keys whose values fit `allowed_values`.
        ignored: keys that were not looked at.
    """

    redacted: list[str] = field(default_factory=list)
    masked: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Run:
    """
    One batch on its way through.

    Args:
        budget: the time of its texts.
        counts: values by what was done to them.
        changed: whether anything was.
    """

    budget: Budget = field(default_factory=Budget)
    counts: Counter[str] = field(default_factory=Counter)
    changed: bool = False


class Redaction:
    """Removes attributes that are not allowed and masks what is blocked."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the redaction processor."""

        allow_all_keys: bool = False
        """Keep attributes of every name; else only `allowed_keys`."""
        allowed_keys: list[str] = []
        """Names of attributes that are kept. Empty means none, unless `allow_all_keys`."""
        ignored_keys: list[str] = []
        """Names of attributes that are kept as they are, without a look."""
        ignored_key_patterns: list[str] = []
        """The same, as patterns."""
        blocked_key_patterns: list[str] = []
        """Patterns of names whose values are masked as a whole."""
        blocked_values: list[str] = []
        """Patterns of texts; what fits is masked."""
        allowed_values: list[str] = []
        """Patterns of texts; a value that fits is not masked."""
        redact_all_types: bool = False
        """Also look at numbers and bools, as text."""
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
        self._allowed = frozenset(config.allowed_keys)
        self._ignored = frozenset(config.ignored_keys)
        self._ignored_patterns = [compiled(text) for text in config.ignored_key_patterns]
        self._blocked_keys = [compiled(text) for text in config.blocked_key_patterns]
        self._blocked = [compiled(text) for text in config.blocked_values]
        self._allowed_values = [compiled(text) for text in config.allowed_values]
        self._known: dict[str, Fate] = {}
        self.mask = masker(config)

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
        told = batch.signal is not Signal.METRICS  # a summary would make other series of points
        for group in resources(batch):
            self._fields(group, ("schema_url",), Report(), run)
            self._attributes(group.resource, Report(), run, told=told)
            for scope in getattr(group, scopes_name):
                self._fields(scope, ("schema_url",), Report(), run)
                report = Report()
                self._fields(scope.scope, ("name", "version"), report, run)
                self._attributes(scope.scope, report, run, told=told)
                for item in getattr(scope, items_name):
                    each(item, run)
        return run

    def _span(self, span: Any, run: Run) -> None:
        report = Report()
        self._fields(span, ("name", "trace_state"), report, run)
        if span.HasField("status"):
            self._fields(span.status, ("message",), report, run, "status.")
        for event in span.events:
            own = Report()
            self._fields(event, ("name",), own, run)
            self._attributes(event, own, run, told=True)
        for link in span.links:
            own = Report()
            self._fields(link, ("trace_state",), own, run)
            self._attributes(link, own, run, told=True)
        self._attributes(span, report, run, told=True)

    def _record(self, record: Any, run: Run) -> None:
        report = Report()
        self._fields(record, ("severity_text", "event_name"), report, run)
        self._attributes(record, report, run, told=True)
        if record.HasField("body"):
            own = Report()
            self._guarded(record.body, "body", own, run, listed=True)
            self._tell(record.attributes, own, run, "body.")

    def _metric(self, metric: Any, run: Run) -> None:
        self._fields(metric, ("name", "description", "unit"), Report(), run)
        self._pairs(metric.metadata, Report(), run)
        for point in points(metric):
            self._attributes(point, Report(), run, told=False)
            if "exemplars" in point.DESCRIPTOR.fields_by_name:
                for exemplar in point.exemplars:
                    self._pairs(exemplar.filtered_attributes, Report(), run)

    def _attributes(self, owner: Any, report: Report, run: Run, *, told: bool) -> None:
        """The attributes of a message, and the summary in them."""
        self._pairs(owner.attributes, report, run)
        if told:
            self._tell(owner.attributes, report, run)

    # --- rules ---

    def _fields(
        self, owner: Any, names: tuple[str, ...], report: Report, run: Run, prefix: str = ""
    ) -> None:
        """The plain texts of a message."""
        for name in names:
            text = getattr(owner, name)
            if text:
                clean = self._clean(text, run)
                if clean != text:
                    setattr(owner, name, clean)
                    report.masked.append(prefix + name)

    def _pairs(
        self,
        pairs: Any,
        report: Report,
        run: Run,
        *,
        path: str = "",
        depth: int = 0,
        listed: bool = True,
    ) -> None:
        """
        Attributes, or the pairs of a map inside a value.

        Args:
            pairs: the repeated KeyValue.
            report: told what was done.
            run: the batch.
            path: where they are, with a dot at its end.
            depth: how deep in a value.
            listed: whether only `allowed_keys` are kept. That list is about the names of
                attributes and the keys in log bodies, not about the keys inside attributes.
        """
        doomed = []
        for place, pair in enumerate(pairs):
            key = pair.key
            fate = self._fate(key, run)
            name = path + fate.shown
            if fate.ignored:
                report.ignored.append(name)
                continue
            if listed and not fate.allowed:
                report.redacted.append(name)
                doomed.append(place)
                continue
            if fate.shown != key:
                pair.key = fate.shown
                run.changed = True
            strict = listed and bool(path)  # a body
            if not self._guarded(
                pair.value, name, report, run, depth=depth, masked=fate.masked, listed=strict
            ):
                doomed.append(place)
        for place in reversed(doomed):
            del pairs[place]
        if doomed:
            run.counts["removed"] += len(doomed)
            run.changed = True

    def _fate(self, key: str, run: Run) -> Fate:
        """What happens to attributes of this name; a rule that fails masks the value."""
        found = self._known.get(key)
        if found is None:
            try:
                found = self._decide(key, run)
            except TooSlow:
                return UNKNOWN  # not remembered: the next batch has time again
            except Exception:
                found = UNKNOWN
            if len(self._known) < REMEMBERED:
                self._known[key] = found
        return found

    def _decide(self, key: str, run: Run) -> Fate:
        budget = run.budget
        shown = key
        for pattern in self._blocked:
            shown = pattern.replace(shown, self.mask, budget)
        return Fate(
            ignored=key in self._ignored
            or any(pattern.found_in(key, budget) for pattern in self._ignored_patterns),
            allowed=self.config.allow_all_keys or key in self._allowed,
            masked=any(pattern.found_in(key, budget) for pattern in self._blocked_keys),
            shown=shown,
        )

    def _guarded(
        self,
        value: Any,
        name: str,
        report: Report,
        run: Run,
        *,
        depth: int = 0,
        masked: bool = False,
        listed: bool,
    ) -> bool:
        """Apply the rules to one value; False when it could not be done and the value is gone."""
        try:
            if masked:
                self._whole(value, name, report, run)
            else:
                self._value(value, name, report, run, depth=depth, listed=listed)
        except Exception:
            # Fails closed: whatever is wrong with a rule or a value, the value does not pass.
            run.counts["failed"] += 1
            run.changed = True
            value.Clear()
            return False
        return True

    def _whole(self, value: Any, name: str, report: Report, run: Run) -> None:
        """Mask a value for its name, whatever its type."""
        text = text_of(value_of(value))
        if self._allows(text, run):
            report.allowed.append(name)
            return
        self._write(value, self.mask(text), name, report, run)
        run.counts["masked"] += 1

    def _value(
        self, value: Any, name: str, report: Report, run: Run, *, depth: int, listed: bool
    ) -> None:
        """Mask what is blocked in a value and in everything inside it."""
        if depth > DEEPEST:
            raise ValueError("nested too deeply")
        kind = value.WhichOneof("value")
        if kind == "kvlist_value":
            pairs = value.kvlist_value.values
            path = f"{name}."
            self._pairs(pairs, report, run, path=path, depth=depth + 1, listed=listed)
        elif kind == "array_value":
            for inner in value.array_value.values:
                self._value(inner, name, report, run, depth=depth + 1, listed=listed)
        elif kind == "string_value":
            text = value.string_value
            if self._allows(text, run):
                report.allowed.append(name)
                return
            clean = self._clean(text, run)
            if clean != text:
                self._write(value, clean, name, report, run)
        elif kind == "bytes_value" or (kind is not None and self.config.redact_all_types):
            found = value_of(value)
            text = found.decode(errors="replace") if isinstance(found, bytes) else text_of(found)
            if not self._allows(text, run) and self._clean(text, run) != text:
                self._write(value, self.mask(text), name, report, run)

    def _write(self, value: Any, text: str, name: str, report: Report, run: Run) -> None:
        value.string_value = text
        run.changed = True
        if name not in report.masked:
            report.masked.append(name)

    def _allows(self, text: str, run: Run) -> bool:
        """Whether a text is allowed whatever it holds; it is not when that cannot be told."""
        if not self._allowed_values:
            return False
        try:
            return any(pattern.found_in(text, run.budget) for pattern in self._allowed_values)
        except TooSlow:
            return False

    def _clean(self, text: str, run: Run) -> str:
        """A text without what is blocked; wholly masked when that cannot be told."""
        clean = text
        try:
            for pattern in self._blocked:
                clean = pattern.replace(clean, self.mask, run.budget)
        except TooSlow:
            run.counts["too_slow"] += 1
            run.changed = True
            return self.mask(text)
        except Exception:
            run.counts["failed"] += 1
            run.changed = True
            return MASK
        if clean != text:
            run.counts["masked"] += 1
            run.changed = True
        return clean

    # --- the summary ---

    def _tell(self, attributes: Any, report: Report, run: Run, part: str = "") -> None:
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


UNKNOWN: Final = Fate(ignored=False, allowed=False, masked=True, shown=MASK)


def masker(config: Redaction.Config) -> Callable[[str], str]:
    """What is written in place of a text."""
    if not config.hash_function:
        return lambda _: MASK
    key = config.hmac_key.encode()
    digest = config.hash_function.removeprefix("hmac-")
    return lambda text: hmac.new(key, text.encode(), digest).hexdigest()
