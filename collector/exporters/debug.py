r"""
The debug exporter: shows on the terminal what passes through; it keeps nothing.

Three degrees, as in the OpenTelemetry Collector: one line of counts per batch, one line per item,
or everything. The last two show documents (documents.py), which is what a store would hold, rather
than a second rendering of the protobuf. Text from the data never reaches the terminal raw: what
is not printable (escape sequences, newlines, direction marks) is written as `\x1b`.

Terminals can be slow or stopped (Ctrl-S, a full pipe), so a thread writes, and a write that fails
is counted and fails no batch.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, TextIO

import msgspec

from collector.documents.build import Document, documents, dumps
from collector.errors import printable
from collector.model import Batch, Host, Signal
from collector.otlp import GROUPS, attribute_text, count, items, resources

STREAMS: Final = ("stdout", "stderr")
INDENT: Final = "    "

TITLES: Final = {
    Signal.TRACES: ("Traces", "Span"),
    Signal.METRICS: ("Metrics", "Metric point"),
    Signal.LOGS: ("Logs", "Log record"),
}
"""What a batch and an item are called."""


class Sampling:
    """
    Which batches of a second are shown.

    Args:
        initial: the first so many.
        thereafter: behind those each so manieth; 0 for none.
    """

    def __init__(self, initial: int, thereafter: int) -> None:
        self.initial = initial
        self.thereafter = thereafter
        self._second = -1
        self._seen = 0

    def shows(self, second: int) -> bool:
        """Whether to show the next batch of this second."""
        if second != self._second:
            self._second, self._seen = second, 0
        self._seen += 1
        behind = self._seen - self.initial
        return behind <= 0 or (self.thereafter > 0 and behind % self.thereafter == 0)


class Debug:
    """Writes batches to the log or to the terminal."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the debug exporter."""

        verbosity: Annotated[
            Literal["basic", "normal", "detailed"], msgspec.Meta(extra={"case": "any"})
        ] = "basic"
        """`basic`: counts per batch; `normal`: one line per item; `detailed`: everything."""
        sampling_initial: int = 2
        """How many batches are shown in each second before sampling begins."""
        sampling_thereafter: int = 1
        """Behind those, each so manieth batch is shown: 1 shows all, 0 none."""
        use_internal_logger: bool = True
        """Write through the collector's own log (INFO, on stderr) rather than to `output_paths`."""
        output_paths: list[str] = msgspec.field(default_factory=lambda: ["stdout"])
        """`stdout` and `stderr`; used when `use_internal_logger` is false."""

        def __post_init__(self) -> None:
            """Check what the types cannot say."""
            if self.sampling_initial < 0 or self.sampling_thereafter < 0:
                raise ValueError("sampling_initial and sampling_thereafter must not be negative")
            for path in self.output_paths:
                if path not in STREAMS:
                    raise ValueError(
                        f'output_paths: "{path}" is not stdout or stderr; '
                        "use the file exporter to write files"
                    )

    def __init__(self, config: Config, host: Host) -> None:
        self.config = config
        self.host = host
        self._verbosity = config.verbosity
        self._sampling = Sampling(config.sampling_initial, config.sampling_thereafter)
        self._lock = asyncio.Lock()

    def describe(self) -> str:
        """Where the text goes."""
        place = (
            "the log" if self.config.use_internal_logger else ", ".join(self.config.output_paths)
        )
        return f"{self._verbosity} text to {place}"

    durability: Final = "keeps nothing"

    async def __call__(self, batch: Batch) -> None:
        """Show a batch, unless it is sampled out."""
        if not self._sampling.shows(int(time.monotonic())):
            return
        async with self._lock:
            await asyncio.to_thread(self._write, batch)

    def _write(self, batch: Batch) -> None:
        text = "\n".join(self._lines(batch))
        if self.config.use_internal_logger:
            self.host.log.info("%s", text)
            return
        for path in self.config.output_paths:
            stream: TextIO = getattr(sys, path)
            try:
                stream.write(text + "\n")
                stream.flush()
            except (OSError, ValueError):  # the reader is gone, or the stream is closed
                self.host.stats.add("otelier_debug_write_failed", exporter=self.host.id)

    def _lines(self, batch: Batch) -> Iterator[str]:
        title, item = TITLES[batch.signal]
        yield f"{title} {json.dumps(counts(batch))}"
        if self._verbosity == "basic":
            return
        for number, document in enumerate(documents(batch)):
            if self._verbosity == "normal":
                yield f"{item} {line(batch.signal, document)}"
            else:
                yield f"{item} #{number}"
                yield from dump(json.loads(dumps(document)), INDENT)


def counts(batch: Batch) -> dict[str, int]:
    """How many groups and items a batch has, under the OpenTelemetry Collector's names."""
    groups, _, inner = (name.replace("_", " ") for name in GROUPS[batch.signal])
    found = {groups: len(resources(batch)), inner: sum(1 for _ in items(batch))}
    if batch.signal is Signal.METRICS:
        found["data points"] = count(batch.signal, batch.message)
    return found


def line(signal: Signal, document: Document) -> str:
    """One item in one line."""
    if signal is Signal.TRACES:
        head = [document.get(key, "") for key in ("name", "trace_id", "span_id", "status")]
        head.insert(3, f"{document.get('duration_ms', 0.0):.3f}ms")
    elif signal is Signal.LOGS:
        trace = document.get("trace", {})
        head = [document.get("level", ""), document.get("message", ""), trace.get("trace_id", "")]
    else:
        value = document.get("value", document.get("count", ""))
        head = [document.get("name", ""), document.get("type", ""), value]
    pairs = {"service": document.get("service", ""), **document.get("context", {})}
    pairs |= document.get("attributes", {})
    words = [printable(str(word)) for word in head if word != ""]
    return " ".join(
        [
            *words,
            *(
                f"{printable(key)}={printable(attribute_text(value))}"
                for key, value in pairs.items()
            ),
        ]
    )


def dump(value: Any, indent: str) -> Iterator[str]:
    """A document as indented lines, its keys in order."""
    pairs = (
        value.items() if isinstance(value, dict) else ((f"[{n}]", v) for n, v in enumerate(value))
    )
    for key, inner in pairs:
        if isinstance(inner, dict | list) and inner:
            yield f"{indent}{printable(str(key))}:"
            yield from dump(inner, indent + INDENT)
        else:
            shown = inner if isinstance(inner, str) else json.dumps(inner)
            yield f"{indent}{printable(str(key))}: {printable(shown)}"
