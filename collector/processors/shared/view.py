"""
What the function of the `python` processor is given: the items of a batch, to be read and changed.

Attributes are dicts of Python values whose writes go to the message at once. Code that needs more
has `message`, the protobuf of the span, metric or log record.
"""

from collections.abc import Iterator, MutableMapping
from typing import Any

from collector.model import Batch, Signal
from collector.otlp import GROUPS, points, resources
from collector.processors.shared.attribute_map import (
    Attributes,
    set_value,
    value_of,
)
from collector.processors.shared.record_identity import (
    Sieve,
)


class Item:
    """
    A span, a metric or a log record.

    Args:
        group: its resource group.
        scope: its scope group.
        message: the protobuf.
    """

    __slots__ = ("_group", "_scope", "dropped", "message")

    def __init__(self, group: Any, scope: Any, message: Any) -> None:
        self._group = group
        self._scope = scope
        self.message = message
        self.dropped = False

    @property
    def attributes(self) -> MutableMapping[str, Any]:
        """The attributes of a span or log record; a metric has those of its `points`."""
        return Attributes(self.message.attributes)

    @property
    def points(self) -> list[MutableMapping[str, Any]]:
        """The attributes of each data point of a metric."""
        return [Attributes(point.attributes) for point in points(self.message)]

    @property
    def resource(self) -> MutableMapping[str, Any]:
        """The attributes of the resource; it is shared by all items of the same resource."""
        return Attributes(self._group.resource.attributes)

    @property
    def scope(self) -> str:
        """The name of the instrumentation scope; of a log record the logger's name."""
        name: str = self._scope.scope.name
        return name

    @property
    def name(self) -> str:
        """The name of a span or metric, the event name of a log record."""
        field = "name" if hasattr(self.message, "name") else "event_name"
        name: str = getattr(self.message, field)
        return name

    @name.setter
    def name(self, text: str) -> None:
        setattr(self.message, "name" if hasattr(self.message, "name") else "event_name", text)

    @property
    def body(self) -> Any:
        """The body of a log record, as a Python value."""
        return value_of(self.message.body)

    @body.setter
    def body(self, value: Any) -> None:
        set_value(self.message.body, value)

    def drop(self) -> None:
        """Take the item out of the batch when the function has returned."""
        self.dropped = True


class View:
    """
    The items of one batch, in their order.

    Args:
        batch: it is changed.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.signal: Signal = batch.signal
        """What the items are: traces (spans), metrics or logs."""
        _, scopes_name, items_name = GROUPS[batch.signal]
        self._scopes = [
            (scope, [Item(group, scope, item) for item in getattr(scope, items_name)])
            for group in resources(batch)
            for scope in getattr(group, scopes_name)
        ]

    def __iter__(self) -> Iterator[Item]:
        for _, found in self._scopes:
            yield from found

    def __len__(self) -> int:
        return sum(len(found) for _, found in self._scopes)

    def finish(self) -> None:
        """
        Take out what was dropped.

        Raises:
            ValueError: the function took out or added items itself.
        """
        sieve = Sieve(self._batch)
        items_name = GROUPS[self.signal][2]
        for scope, found in self._scopes:
            if len(getattr(scope, items_name)) != len(found):
                raise ValueError("items must not be added or deleted in the message; use drop()")
            sieve.take_out(scope, [not item.dropped for item in found])
        sieve.finish()
        self._batch.changed()
