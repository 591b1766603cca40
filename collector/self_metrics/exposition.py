"""
Prometheus' text formats, written: 0.0.4 by default, OpenMetrics 1.0 for those who ask for it.

A `Family` is one metric with its samples. The same families serve both formats; only OpenMetrics
has exemplars. `Page` answers scrapes over HTTP. The own metrics of the collector and the
`prometheus` exporter stand on this module. (The usual client library cannot write them: it gives every
counter the ending `_total`, and the OpenTelemetry Collector's own metrics have none. Its parser, and
a real Prometheus, read what this writes in the tests.)
"""

import asyncio
import gzip
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
WORTH_COMPRESSING: Final = 1400
EXEMPLAR_LIMIT: Final = 128
"""Characters that the labels of an exemplar may have in all (OpenMetrics)."""

Kind = Literal["counter", "gauge", "histogram", "summary", "unknown"]
Labels = Sequence[tuple[str, str]]


@dataclass(slots=True, frozen=True)
class Exemplar:
    """A value that names the trace that it is from."""

    labels: Labels
    value: float
    time_s: float | None = None


@dataclass(slots=True, frozen=True)
class Sample:
    """
    One line.

    Args:
        labels: names and values; names are valid already.
        value: the number.
        suffix: behind the name of the family, such as `_bucket`.
        time_s: when it was measured, None for now.
        exemplar: an example, only written in OpenMetrics, for counters and buckets.
    """

    labels: Labels
    value: float
    suffix: str = ""
    time_s: float | None = None
    exemplar: Exemplar | None = None


@dataclass(slots=True)
class Family:
    """
    One metric.

    Args:
        name: as it stands in 0.0.4; a counter may end in `_total`.
        kind: its type.
        help: what it means.
        samples: its lines; those of one histogram follow each other.
    """

    name: str
    kind: Kind
    help: str = ""
    samples: list[Sample] = field(default_factory=list)


def render(families: Iterable[Family], *, openmetrics: bool = False) -> bytes:
    """Families as a text."""
    lines: list[str] = []
    for family in families:
        lines += written(family, openmetrics=openmetrics)
    if openmetrics:
        lines.append("# EOF")
    return ("\n".join(lines) + "\n").encode() if lines else b""


def written(family: Family, *, openmetrics: bool) -> Iterator[str]:
    """One family, line by line."""
    name, kind = family.name, family.kind
    total = ""
    if openmetrics and kind == "counter":  # the name of the family is without, its line is with
        name, total = name.removesuffix("_total"), "_total"
    kind_word = "untyped" if kind == "unknown" and not openmetrics else kind
    if family.help:
        yield f"# HELP {name} {escaped(family.help, quotes=openmetrics)}"
    yield f"# TYPE {name} {kind_word}"
    for sample in family.samples:
        labels = ",".join(
            f'{key}="{escaped(boundary(key, text, openmetrics=openmetrics))}"'
            for key, text in sample.labels
        )
        head = f"{name}{sample.suffix or total}" + (f"{{{labels}}}" if labels else "")
        line = f"{head} {number(sample.value)}"
        if sample.time_s is not None:
            line += f" {sample.time_s:.3f}" if openmetrics else f" {int(sample.time_s * 1000)}"
        # OpenMetrics allows them there alone; a parser refuses the whole page for one on a gauge.
        if openmetrics and sample.exemplar is not None and (total or sample.suffix == "_bucket"):
            line += example(sample.exemplar)
        yield line


def example(exemplar: Exemplar) -> str:
    """An exemplar as the end of a line; empty when its labels are too long."""
    if sum(len(key) + len(text) for key, text in exemplar.labels) > EXEMPLAR_LIMIT:
        return ""
    labels = ",".join(f'{key}="{escaped(text)}"' for key, text in exemplar.labels)
    time = f" {exemplar.time_s:.3f}" if exemplar.time_s is not None else ""
    return f" # {{{labels}}} {number(exemplar.value)}{time}"


def boundary(key: str, text: str, *, openmetrics: bool) -> str:
    """`le` and `quantile` are numbers: 0.0.4 writes `1`, OpenMetrics `1.0`."""
    if openmetrics and key in ("le", "quantile") and re.fullmatch(r"-?\d+", text):
        return f"{text}.0"
    return text


def escaped(text: str, *, quotes: bool = True) -> str:
    """A text between quotes, or behind `# HELP`."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def number(value: float) -> str:
    """A number as both formats write it."""
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def name_of(text: str) -> str:
    """A metric name that is valid: other characters become `_`, never two in a row."""
    text = re.sub(r"_{2,}", "_", re.sub(r"[^a-zA-Z0-9:_]", "_", text)).strip("_") or "_"
    return f"_{text}" if text[0].isdigit() else text


def label_of(text: str) -> str:
    """A label name that is valid; names with two underscores in front are reserved."""
    text = re.sub(r"_{2,}", "_", re.sub(r"[^a-zA-Z0-9_]", "_", text)) or "_"
    return f"key_{text}" if text[0].isdigit() or text[0] == "_" else text


class Page:
    """
    Answers scrapes, as an ASGI application.

    Args:
        collect: the families, as of now; called on the event loop.
        path: where they are.
        openmetrics: whether to write OpenMetrics when it is asked for.
    """

    def __init__(
        self,
        collect: Callable[[], Iterable[Family]],
        path: str = "/metrics",
        *,
        openmetrics: bool = True,
    ) -> None:
        self._collect = collect
        self._path = path
        self._openmetrics = openmetrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002 - ASGI's signature
        """Answer one request; the body that a client may send is not read."""
        if scope["type"] != "http":
            return
        asked = {bytes(key).lower(): bytes(value) for key, value in scope["headers"]}
        status, headers, body = await self._answer(scope["method"], scope["path"], asked)
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        shown = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": shown})

    async def _answer(
        self, method: str, path: str, asked: dict[bytes, bytes]
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        plain = (b"content-type", b"text/plain; charset=utf-8")
        if path != self._path:
            return 404, [plain], f"not found; metrics are at {self._path}\n".encode()
        if method not in ("GET", "HEAD"):
            return 405, [plain, (b"allow", b"GET, HEAD")], b"use GET\n"
        openmetrics = self._openmetrics and wants_openmetrics(
            asked.get(b"accept", b"").decode("latin-1")
        )
        families = list(self._collect())
        body = await asyncio.to_thread(render, families, openmetrics=openmetrics)
        headers = [(b"content-type", (OPENMETRICS if openmetrics else TEXT).encode())]
        headers.append((b"vary", b"accept, accept-encoding"))
        if len(body) > WORTH_COMPRESSING and b"gzip" in asked.get(b"accept-encoding", b""):
            body = await asyncio.to_thread(gzip.compress, body, 1)
            headers.append((b"content-encoding", b"gzip"))
        return 200, headers, body


def wants_openmetrics(accept: str) -> bool:
    """Whether a client prefers OpenMetrics to the plain text format."""
    ranks = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        if kind in ranks:
            try:
                ranks[kind] = max(ranks[kind], float(quality))
            except ValueError:
                continue
    return 0 < ranks["application/openmetrics-text"] >= ranks["text/plain"]
