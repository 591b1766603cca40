"""
The probabilistic_sampler processor: keeps a share of traces and log records.

Every item has a randomness R of 56 bits: that of its tracestate (`ot=rv:`), the last 7 bytes of
its trace id, or a hash. It is kept when R >= T, the threshold; `ot=th:` in the tracestate (for log
records the attribute `sampling.threshold`) says with which T it was kept, so that counts can be
scaled up again, and so that samplers in a row, SDKs included, agree on whole traces. This is the
consistent probability sampling of OpenTelemetry (specification, trace/tracestate-probability-sampling);
numbers and texts are those of the OpenTelemetry Collector.

The decision is a function of the item alone: a resend is sampled in the same way.
"""

import math
import re
import struct
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from collector.model import Batch, Consume, Host, Signal
from collector.otlp import GROUPS, resources
from collector.processors.shared.attribute_map import (
    get,
    put,
    remove,
    text_of,
    value_of,
)
from collector.processors.shared.record_identity import (
    Sieve,
)
from collector.processors.shared.work import (
    arrived,
    dropped,
    handed_on,
    offload,
)
from collector.stats import QuietLog

ALL: Final = 1 << 56
"""Thresholds are 0 (keep all) to `ALL` (keep none); randomness is below it."""
BUCKETS: Final = 0x4000
DIGITS: Final = 14
SMALLEST: Final = 1 / ALL
THRESHOLD: Final = re.compile(r"0|[0-9a-f]{1,14}")
RANDOMNESS: Final = re.compile(r"[0-9a-f]{14}")
MEMBERS: Final = 32
LONGEST_STATE: Final = 8192
LOG_THRESHOLD: Final = "sampling.threshold"
LOG_RANDOMNESS: Final = "sampling.randomness"
PRIORITY: Final = "sampling.priority"
NUMBER: Final = re.compile(r"[+-]?[0-9]{1,9}(?:\.[0-9]{0,9})?")


class Unusable(Exception):
    """What an item says about its sampling cannot be used; the text is a reason for counters."""


@dataclass(slots=True)
class State:
    """
    What an item says about its sampling.

    Args:
        threshold: with which it was kept so far; None when it does not say.
        randomness: its own; None when it does not say.
    """

    threshold: int | None = None
    randomness: int | None = None


class ProbabilisticSampler:
    """Keeps a share of spans and log records."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the sampler."""

        sampling_percentage: float = 0.0
        """How much is kept: 0 keeps nothing, 100 and more everything."""
        hash_seed: int = 0
        """For hashes; the same for all collectors that must agree."""
        mode: Literal["hash_seed", "equalizing", "proportional"] = "hash_seed"
        """`hash_seed`: by a hash of the trace id; `equalizing`: at most this share of what was
        sampled before; `proportional`: this share of what comes in."""
        sampling_precision: int = 4
        """Hexadecimal digits of a threshold, 1 to 14."""
        fail_closed: bool = True
        """Whether items whose sampling information is unusable are dropped."""
        attribute_source: Literal["traceID", "record"] = "traceID"
        """Log records: hash the trace id, or the attribute `from_attribute`."""
        from_attribute: str = ""
        """Log records: the attribute to hash, when `attribute_source` is `record` or there is no
        trace id."""
        sampling_priority: str = ""
        """Log records: an attribute that holds a percentage for this record, when it is higher."""

        def __post_init__(self) -> None:
            """Check what the types cannot say."""
            percentage = self.sampling_percentage
            if not math.isfinite(percentage):
                raise ValueError(f"sampling_percentage: sampling rate is invalid: {percentage}%")
            if percentage < 0:
                raise ValueError(f"sampling_percentage: sampling rate is negative: {percentage}%")
            if 0 < percentage / 100 < SMALLEST:
                raise ValueError(f"sampling_percentage: sampling rate is too small: {percentage}%")
            if not 0 <= self.hash_seed <= 0xFFFFFFFF:
                raise ValueError("hash_seed must be between 0 and 4294967295")
            if not 1 <= self.sampling_precision <= DIGITS:
                raise ValueError("sampling_precision must be between 1 and 14")
            if self.attribute_source == "record" and not self.from_attribute:
                raise ValueError("attribute_source: record needs from_attribute")

    mutates = True

    def __init__(self, config: Config, host: Host, next: Consume) -> None:  # noqa: A002 - the word of the protocol
        self.config = config
        self.host = host
        self.next = next
        self._quiet_log = QuietLog(host.log)
        share = single(config.sampling_percentage)
        self._ratio = min(share, 100.0) / 100
        self._hashing = config.mode == "hash_seed"
        self._seed = struct.pack("<I", config.hash_seed)
        if self._hashing:
            # In 32 bits and cut, as the OpenTelemetry Collector does, so that both agree.
            scaled = int(single(min(share, 100.0) * single(BUCKETS / 100)))
            self._threshold = (BUCKETS - scaled) << 42
        else:
            self._threshold = threshold_of(self._ratio, config.sampling_precision)

    async def __call__(self, batch: Batch) -> None:
        """Drop what is not sampled and hand on the rest, if there is any; metrics pass."""
        amount = arrived(self.host, batch)
        if batch.signal is not Signal.METRICS and amount:
            gone, unusable = await offload(amount, self.sample, batch)
            dropped(self.host, "sampled_out", gone - unusable)
            dropped(self.host, "sampling_unusable", unusable)
            amount -= gone
            if not amount:
                return
        handed_on(self.host, batch.signal, amount)
        await self.next(batch)

    def sample(self, batch: Batch) -> tuple[int, int]:
        """Take out what is not sampled; how many, and how many of them for unusable information."""
        _, scopes_name, items_name = GROUPS[batch.signal]
        decide = self.span if batch.signal is Signal.TRACES else self.record
        sieve = Sieve(batch)
        unusable = 0
        for group in resources(batch):
            for scope in getattr(group, scopes_name):
                kept = []
                for item in getattr(scope, items_name):
                    try:
                        kept.append(decide(item))
                    except Unusable as reason:
                        if self._ratio >= 1:  # everything is wanted, whatever is known of it
                            kept.append(True)
                            continue
                        self._quiet_log.warning("An item cannot be sampled properly: %s", reason)
                        kept.append(not self.config.fail_closed)
                        unusable += self.config.fail_closed
                sieve.take_out(scope, kept)
        sieve.finish()
        batch.changed()
        return sieve.gone, unusable

    # --- spans ---

    def span(self, span: Any) -> bool:
        """Whether a span is kept; what is kept says so in its tracestate."""
        priority = priority_of(span)
        if priority == 0:
            return False
        forced = priority is not None
        try:
            members, own, state = read_state(span.trace_state)
            randomness = self.span_randomness(span, state)
            if state.threshold is not None and randomness < state.threshold:
                write_state(span, members, [pair for pair in own if pair[0] != "th"])
                raise Unusable("the threshold in the tracestate says that it was not sampled")
        except Unusable:
            if forced:
                return True
            raise
        threshold = 0 if forced else self.decide(state)
        if randomness < threshold:
            return False
        if self._hashing and state.randomness is None:
            own = [*own, ("rv", f"{randomness:014x}")]
        if state.threshold is None or threshold > state.threshold:
            own = [("th", digits(threshold)), *(pair for pair in own if pair[0] != "th")]
        write_state(span, members, own)
        return True

    def span_randomness(self, span: Any, state: State) -> int:
        """
        The randomness of a span.

        Raises:
            Unusable: it has none, or one that this mode must not meet.
        """
        if self._hashing:
            if state.randomness is not None or state.threshold is not None:
                raise Unusable("the tracestate has rv or th; use mode equalizing or proportional")
            return self.hashed(span.trace_id)
        if state.randomness is not None:
            return state.randomness
        if not span.trace_id:
            raise Unusable("it has no trace id")
        return int.from_bytes(span.trace_id[-7:])

    # --- log records ---

    def record(self, record: Any) -> bool:
        """Whether a log record is kept; what is kept says so in its attributes."""
        attributes = record.attributes
        wanted = self.priority_threshold(attributes)
        try:
            state = read_attributes(attributes)
            randomness = self.record_randomness(record, state)
            if state.threshold is not None and randomness < state.threshold:
                remove(attributes, LOG_THRESHOLD.__eq__)
                raise Unusable(f"the attribute {LOG_THRESHOLD} says that it was not sampled")
        except Unusable:
            if wanted == 0:
                return True
            raise
        threshold = min(self.decide(state), wanted)
        if randomness < threshold:
            return False
        if self._hashing:
            put(attributes, LOG_RANDOMNESS).string_value = f"{randomness:014x}"
        if state.threshold is None or threshold > state.threshold:
            put(attributes, LOG_THRESHOLD).string_value = digits(threshold)
        return True

    def record_randomness(self, record: Any, state: State) -> int:
        """
        The randomness of a log record.

        Raises:
            Unusable: it has none, or one that this mode must not meet.
        """
        if self._hashing:
            if state.randomness is not None or state.threshold is not None:
                raise Unusable("the record has sampling attributes; use another mode")
            if self.config.attribute_source == "traceID" and record.trace_id:
                return self.hashed(record.trace_id)
        elif state.randomness is not None:
            return state.randomness
        elif record.trace_id:
            return int.from_bytes(record.trace_id[-7:])
        found = get(record.attributes, self.config.from_attribute)
        if self.config.from_attribute and found is not None:
            value = value_of(found)
            return self.hashed(value if isinstance(value, bytes) else text_of(value).encode())
        raise Unusable("it has neither a trace id nor the attribute from_attribute")

    def priority_threshold(self, attributes: Any) -> int:
        """The threshold that a log record asks for; `ALL` when it asks for none."""
        found = get(attributes, self.config.sampling_priority)
        value = None if found is None else value_of(found)
        if not self.config.sampling_priority or isinstance(value, bool):
            return ALL
        if not isinstance(value, int | float) or not value > 0:
            return ALL
        return threshold_of(min(value, 100) / 100, self.config.sampling_precision)

    # --- both ---

    def decide(self, state: State) -> int:
        """The threshold for an item."""
        if self.config.mode == "proportional" and state.threshold:
            before = (ALL - state.threshold) / ALL
            return threshold_of(before * self._ratio, self.config.sampling_precision)
        return self._threshold

    def hashed(self, data: bytes) -> int:
        """Randomness from a hash; the first 14 bits decide (FNV-1a, as the Collector's)."""
        value = 2166136261
        for byte in self._seed + data:
            value = (value ^ byte) * 16777619 & 0xFFFFFFFF
        bucket = value & (BUCKETS - 1)
        unused = value >> 18
        return (BUCKETS - 1 - bucket) << 42 | (unused ^ unused << 10) << 14 | bucket


def single(value: float) -> float:
    """A number as 32 bits can hold it."""
    found: float = struct.unpack("f", struct.pack("f", min(value, 3e38)))[0]
    return found


def threshold_of(probability: float, precision: int) -> int:
    """The threshold that keeps this share, rounded to so many significant digits."""
    if probability < SMALLEST:
        return ALL
    if probability >= 1:
        return 0
    reject = 1 - probability
    while reject * 16 < 1:  # leading zeros are no significant digits
        reject *= 16
        precision += 1
        if precision > DIGITS:
            return 0
    threshold = ALL - round(probability * ALL)
    shift = 4 * (DIGITS - precision)
    half = 1 << shift >> 1
    return min((threshold + half) >> shift << shift, ALL)


def digits(threshold: int) -> str:
    """A threshold as `th` has it: 14 digits without the zeros at the end."""
    return f"{threshold:014x}".rstrip("0") or "0"


def read_state(text: str) -> tuple[list[str], list[tuple[str, str]], State]:
    """
    The members of a tracestate, the parts of OpenTelemetry's own, and what they say.

    Raises:
        Unusable: it is no tracestate.
    """
    if not text:
        return [], [], State()
    members = [member.strip() for member in text.split(",")]
    members = [member for member in members if member]
    if len(text) > LONGEST_STATE or len(members) > MEMBERS:
        raise Unusable("the tracestate is too long")
    own: list[tuple[str, str]] = []
    others = []
    for member in members:
        key, equals, value = member.partition("=")
        if not equals or not key:
            raise Unusable("the tracestate cannot be read")
        if key != "ot":
            others.append(member)
            continue
        for part in value.split(";"):
            name, colon, inner = part.partition(":")
            if not colon:
                raise Unusable("the tracestate's ot cannot be read")
            own.append((name, inner))
    found = dict(own)
    return others, own, state_of(found.get("th"), found.get("rv"))


def state_of(threshold: str | None, randomness: str | None) -> State:
    """
    What the texts of a threshold and a randomness mean.

    Raises:
        Unusable: they mean nothing.
    """
    state = State()
    if threshold is not None:
        if not THRESHOLD.fullmatch(threshold):
            raise Unusable("the threshold is not 1 to 14 hexadecimal digits")
        state.threshold = int(threshold.ljust(DIGITS, "0"), 16)
    if randomness is not None:
        if not RANDOMNESS.fullmatch(randomness):
            raise Unusable("the randomness is not 14 hexadecimal digits")
        state.randomness = int(randomness, 16)
    return state


def write_state(span: Any, members: list[str], own: list[tuple[str, str]]) -> None:
    """Write a tracestate; the member that was changed stands first (W3C Trace Context, 3.5)."""
    inner = ";".join(f"{name}:{value}" for name, value in own)
    span.trace_state = ",".join([*([f"ot={inner}"] if inner else []), *members][:MEMBERS])


def read_attributes(attributes: Any) -> State:
    """
    What a log record says about its sampling.

    Raises:
        Unusable: it says something that means nothing.
    """
    texts = {LOG_THRESHOLD: "", LOG_RANDOMNESS: ""}
    for pair in attributes:
        if pair.key in texts:
            texts[pair.key] = pair.value.string_value
    return state_of(texts[LOG_THRESHOLD] or None, texts[LOG_RANDOMNESS] or None)


def priority_of(span: Any) -> float | None:
    """`sampling.priority` of a span: 0 drops it, more keeps it; None leaves it to the sampler."""
    found = get(span.attributes, PRIORITY)
    value = None if found is None else value_of(found)
    if isinstance(value, str) and NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value >= 0 else None
