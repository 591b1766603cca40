"""
What is too large in a request that is otherwise good: cut, counted, and said where OTLP can say it.

Only requests in which `sizing` has seen something over a limit come here, so nothing of this
is on the path of honest senders. Names and values of attributes are cut at a character, lists of
attributes at their number (`dropped_attributes_count`). A record that is still too large gives up
what it has most of: a log record the end of its body (with a mark), a span its last events and
links, all of them their last attributes. What does not fit even then is refused alone.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from collector.errors import TooLarge
from collector.model import Signal
from collector.otlp.repair import Limits
from collector.otlp.sizing import Survey

TOO_LARGE: Final = "larger than"
MOST: Final = 0xFFFFFFFF
"""The largest uint32, which counts what was dropped."""
MARK: Final = "... [{} bytes left out]"
MARK_ROOM: Final = 64
FRAME: Final = 16
"""Bytes that a field may take beyond its value: tag and length, on each of a few levels."""
SPREAD: Final = 256 << 20
"""Every document repeats its resource and scope: so many bytes of that come from one request."""


def needed(found: Survey, limits: Limits) -> bool:
    """Whether anything in a request may be over a limit on size."""
    return (
        found.attributes > limits.attributes
        or found.key > limits.key
        or found.value > limits.value
        or found.largest > limits.record
        or found.largest * max(found.items, found.points) > SPREAD
    )


def too_large(limits: Limits) -> str:
    """Why a record is refused."""
    return f"{TOO_LARGE} {limits.record} bytes"


class Trim:
    """
    One run over a message, in place.

    Args:
        limits: how large is too large.
        repaired: where what was cut is counted, by kind: `attributes`, `keys`, `values`, `records`.
        reasons: where refused records are counted.
    """

    def __init__(self, limits: Limits, repaired: Counter[str], reasons: Counter[str]) -> None:
        self.limits = limits
        self.repaired = repaired
        self.reasons = reasons

    def request(self, signal: Signal, message: Any, groups: tuple[str, str, str]) -> None:
        """
        Trim a whole request.

        Raises:
            TooLarge: a large resource stands in front of too many records.
        """
        groups_name, scopes_name, items_name = groups
        spread = 0
        for group in getattr(message, groups_name):
            self.owner(group.resource)
            self.texts(group)
            for scope in getattr(group, scopes_name):
                self.owner(scope.scope)
                self.texts(scope)
                items = getattr(scope, items_name)
                size = group.resource.ByteSize() + scope.scope.ByteSize()
                if signal is Signal.METRICS:
                    spread += sum(self.metric(metric, size) for metric in items)
                else:
                    spread += size * len(items)
                    self.keep(items, self.log if signal is Signal.LOGS else self.span)
                if spread > SPREAD:
                    raise TooLarge(
                        f"more than {SPREAD} bytes of resources and scopes, counted once for each "
                        "record; send smaller resources"
                    )

    def metric(self, metric: Any, size: int) -> int:
        """Trim a metric; the bytes that its points repeat, with so many of resource and scope."""
        self.texts(metric)
        kind = metric.WhichOneof("data")
        if kind is None:
            return 0
        points = getattr(metric, kind).data_points
        self.keep(points, self.point)
        return len(points) * (size + len(metric.description) + len(metric.name))

    def keep(self, records: Any, trim: Callable[[Any], bool]) -> None:
        """Trim each of a list; those that cannot be are refused alone."""
        fine = [record for record in records if trim(record)]
        if len(fine) < len(records):
            self.reasons[too_large(self.limits)] += len(records) - len(fine)
            del records[:]
            records.extend(fine)

    def owner(self, owner: Any) -> bool:
        """Trim the attributes of anything; whether it fits now."""
        self.cut(owner, len(owner.attributes) - self.limits.attributes)
        for pair in owner.attributes:
            self.pair(pair)
        return self.fits(owner) or self.texts(owner) or self.drop_attributes(owner)

    def texts(self, owner: Any) -> bool:
        """Cut the texts of a message itself; whether it fits now."""
        for field, text in owner.ListFields():
            if field.type == field.TYPE_STRING and len(text.encode()) > self.limits.value:
                setattr(owner, field.name, shortened(text, self.limits.value))
                self.repaired["values"] += 1
        return self.fits(owner)

    def span(self, span: Any) -> bool:
        """Trim a span; whether it fits now."""
        for part in (*span.events, *span.links):
            self.owner(part)
        if not self.fits(span):
            self.texts(span.status)
        for name in ("events", "links"):
            parts = getattr(span, name)
            counter = f"dropped_{name}_count"
            extra = span.ByteSize() - self.limits.record
            gone = 0
            while extra > 0 and parts:
                extra -= parts[-1].ByteSize() + 1
                del parts[-1]
                gone += 1
            if gone:
                setattr(span, counter, min(getattr(span, counter) + gone, MOST))
                self.repaired["records"] += 1
        return self.owner(span)

    def point(self, point: Any) -> bool:
        """Trim a data point; whether it fits now."""
        for exemplar in getattr(point, "exemplars", ()):
            for pair in exemplar.filtered_attributes:
                self.pair(pair)
        if not self.fits(point) and getattr(point, "exemplars", None):
            del point.exemplars[:]
            self.repaired["records"] += 1
        return self.owner(point)

    def log(self, record: Any) -> bool:
        """Trim a log record; whether it fits now."""
        if self.fits(record):
            return self.owner(record)
        for pair in record.attributes:
            self.pair(pair)
        extra = record.ByteSize() - self.limits.record
        kind = record.body.WhichOneof("value")
        if extra > 0 and kind in ("string_value", "bytes_value"):
            whole = getattr(record.body, kind)
            data = whole.encode() if kind == "string_value" else whole
            room = max(0, len(data) - extra - MARK_ROOM - FRAME)
            if kind == "string_value":
                kept = shortened(whole, room)
                record.body.string_value = kept + MARK.format(len(data) - len(kept.encode()))
            else:
                record.body.bytes_value = data[:room]
            self.repaired["records"] += 1
        elif extra > 0:
            self.value(record.body)
        return self.owner(record)

    def fits(self, record: Any) -> bool:
        """Whether this is small enough."""
        size: int = record.ByteSize()
        return size <= self.limits.record

    def drop_attributes(self, owner: Any) -> bool:
        """Drop attributes from the end until the owner fits; whether it does."""
        extra = owner.ByteSize() - self.limits.record + FRAME
        gone = 0
        for pair in reversed(owner.attributes):
            if extra <= 0:
                break
            extra -= pair.ByteSize() + 2
            gone += 1
        self.cut(owner, gone)
        return self.fits(owner)

    def cut(self, owner: Any, extra: int) -> None:
        """Cut the last attributes; all but data points can say how many were dropped."""
        if extra <= 0:
            return
        del owner.attributes[-extra:]
        self.repaired["attributes"] += extra
        if "dropped_attributes_count" in owner.DESCRIPTOR.fields_by_name:
            owner.dropped_attributes_count = min(owner.dropped_attributes_count + extra, MOST)

    def pair(self, pair: Any) -> None:
        """Cut one attribute's name and value."""
        self.name(pair)
        if pair.HasField("value") and pair.value.ByteSize() > min(
            self.limits.key, self.limits.value
        ):
            self.value(pair.value)

    def name(self, pair: Any) -> None:
        """Cut an attribute's name."""
        if len(pair.key) * 4 > self.limits.key and len(pair.key.encode()) > self.limits.key:
            pair.key = shortened(pair.key, self.limits.key)
            self.repaired["keys"] += 1

    def value(self, value: Any) -> None:
        """Cut every text in a value, however deep; names in maps as well."""
        limit = self.limits.value
        waiting = [value]
        while waiting:
            one = waiting.pop()
            kind = one.WhichOneof("value")
            if kind == "string_value":
                if len(one.string_value) * 4 > limit and len(one.string_value.encode()) > limit:
                    one.string_value = shortened(one.string_value, limit)
                    self.repaired["values"] += 1
            elif kind == "bytes_value":
                if len(one.bytes_value) > limit:
                    one.bytes_value = one.bytes_value[:limit]
                    self.repaired["values"] += 1
            elif kind == "array_value":
                waiting.extend(one.array_value.values)
            elif kind == "kvlist_value":
                for pair in one.kvlist_value.values:
                    self.name(pair)
                    waiting.append(pair.value)


def shortened(text: str, size: int) -> str:
    """The beginning of a text in so many bytes."""
    return text.encode()[:size].decode(errors="ignore")
