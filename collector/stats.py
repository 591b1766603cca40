"""
The collector's counters about itself: a dict of integers behind one lock-free `add`.

Names and attributes are the OpenTelemetry Collector's (`otelcol_receiver_accepted_spans`
{receiver, transport}, ...), so that dashboards written for it keep working, plus a few that it
lacks (dropped by reason, repaired, deduplicated). Everything runs on one event loop or adds whole
integers under the GIL, so a dict is enough; a metrics SDK in here would observe itself.
"""

from collections import defaultdict

Key = tuple[str, tuple[tuple[str, str], ...]]


class Stats:
    """Counters by name and attributes."""

    def __init__(self) -> None:
        self._values: defaultdict[Key, int] = defaultdict(int)

    def add(self, name: str, amount: int = 1, **attributes: str) -> None:
        """Count `amount` more of `name`; attributes are low-cardinality words such as a reason."""
        self._values[name, tuple(sorted(attributes.items()))] += amount

    def set(self, name: str, value: int, **attributes: str) -> None:
        """Set a gauge: a number that may also fall, such as the length of a queue."""
        self._values[name, tuple(sorted(attributes.items()))] = value

    def snapshot(self) -> dict[str, int]:
        """All counters, as `name{key="value"}` in alphabetical order."""
        lines = {}
        for (name, attributes), value in sorted(self._values.items()):
            inner = ",".join(f'{key}="{text}"' for key, text in attributes)
            lines[f"{name}{{{inner}}}" if inner else name] = value
        return lines
