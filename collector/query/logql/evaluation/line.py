"""
One log record on its way through the stages of a query.

Labels are in three dicts, because an answer shows them apart: those of the stream, the structured
metadata, and what stages parsed or set; no name is in two of them. The dict of the stream is shared,
so it is copied before it changes.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from collector.query.logql.evaluation import labels
from collector.stores.base import Document

ERROR: Final = "__error__"
DETAILS: Final = "__error_details__"
_NONE: Final[dict[str, str]] = {}


class Line:
    """
    A record with its labels.

    Args:
        document: as the store returned it.
        stream: the labels of its stream.
    """

    __slots__ = ("_aliases", "_metadata", "document", "parsed", "stream", "text")

    def __init__(self, document: Document, stream: dict[str, str]) -> None:
        self.document = document
        self.text: str = document.get("message", "")
        self.stream = stream
        self.parsed: dict[str, str] = {}
        self._metadata: dict[str, str] | None = None
        self._aliases: dict[str, str] | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """The structured metadata; made when it is first needed, which many queries never do."""
        if self._metadata is None:
            self._metadata = labels.metadata(self.document)
        return self._metadata

    @property
    def aliases(self) -> dict[str, str]:
        """Names of ours for what stands in the metadata under another name."""
        if self._aliases is None:
            self._aliases = labels.aliases(self.document)
        return self._aliases

    @property
    def time(self) -> int:
        """Nanoseconds since the epoch."""
        time: int = self.document["time_unix_nano"]
        return time

    def get(self, name: str) -> str | None:
        """The value of a label, None without one."""
        value = self.parsed.get(name)
        if value is None:
            value = self.stream.get(name)
        if value is None:
            value = self.metadata.get(name)
        return self.aliases.get(name) if value is None else value

    def set(self, name: str, value: str) -> None:
        """Set a label in place of any other of this name; from now on it counts as parsed."""
        self.delete(name)
        self.parsed[name] = value

    def extract(self, name: str, value: str) -> None:
        """Set a label that a parser found; one that the record has already keeps its name."""
        if name in self.stream or name in self.metadata:
            name += labels.EXTRACTED
        self.parsed[name] = value

    def delete(self, name: str) -> None:
        """Remove a label of any kind."""
        self.parsed.pop(name, None)
        self.metadata.pop(name, None)
        if name in self.aliases:
            del self.aliases[name]
        if name in self.stream:
            self.stream = {key: value for key, value in self.stream.items() if key != name}

    def names(self) -> list[str]:
        """The names of all labels that an answer would show."""
        return [*self.stream, *self.metadata, *self.parsed]

    def fail(self, error: str, details: str) -> None:
        """Mark the line as one that a stage could not work on."""
        self.parsed[ERROR] = error
        self.parsed[DETAILS] = details[:200]

    @property
    def failed(self) -> bool:
        """Whether an earlier stage failed."""
        return bool(self.parsed.get(ERROR))

    def all(self) -> dict[str, str]:
        """All labels that are shown, those set later in place of those set earlier."""
        return {**self.stream, **self.metadata, **self.parsed}


class Labels(Mapping[str, str]):
    """All labels of a line as a mapping, looked up when asked for: what templates see."""

    __slots__ = ("_line",)

    def __init__(self, line: Line) -> None:
        self._line = line

    def __getitem__(self, name: str) -> str:
        value = self._line.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._line.all())

    def __len__(self) -> int:
        return len(self._line.all())
