"""
Log records in files, as a source of LogQL: what the `file` exporter writes, without a server.

A file holds lines of our documents (`format: json`) or of OTLP/JSON, or one OTLP/JSON object over
many lines; it may be packed (.gz, .zst). A folder stands for the files in it, a file also for what
was put aside of it (`logs.jsonl` for `logs-2026-11-30.jsonl.zst`). Records are not in order: each
file has its own, and so has each batch. Those that the selector and the first line filters let pass
are sorted in parts of a few MiB, in a temporary file when there are more, and merged: memory does
not grow with the files. What cannot be read is counted, and said at the end.
"""

import contextlib
import gzip
import heapq
import io
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec
import zstandard

from collector.documents.build import Document, documents, dumps, loads
from collector.exporters.file.paths import STAMP
from collector.model import Request, Signal
from collector.otlp import decode
from collector.query.logql import tree
from collector.query.logql.evaluation.labels import stream_labels
from collector.query.logql.evaluation.source import order
from collector.query.logql.evaluation.stages import Pipeline, pipeline

MAX_LINE: Final = 64 << 20
"""Bytes of one line; a longer one is skipped."""
PART_BYTES: Final = 16 << 20
"""What is sorted in memory at once."""
ENDINGS: Final = (".json", ".jsonl", ".ndjson", ".log", ".txt")
PACKED: Final = (".gz", ".zst")
_OTLP: Final = b"resourceLogs"


class LogFiles:
    """
    The log records of some files.

    Args:
        paths: files and folders.

    Raises:
        FileNotFoundError: one of them is not there.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.files = list(dict.fromkeys(file for path in paths for file in found_at(path)))
        self.skipped = 0
        """Lines that were no log records, in the reading so far."""
        self.broken: dict[str, str] = {}
        """Files that could not be read to their end, and why."""

    def documents(
        self, query: tree.LogQuery, since: int, until: int, *, newest_first: bool
    ) -> Iterator[Document]:
        """Candidates in the order of time; see `Source`."""
        wanted = pipeline(query)
        found = (
            document
            for file in self.files
            for document in self._records(file)
            if since <= document["time_unix_nano"] < until and _passes(wanted, document)
        )
        yield from _sorted(found, newest_first=newest_first)

    def times(self) -> tuple[int, int]:
        """The times of the first and the last record, in nanoseconds; 0 and 0 without any."""
        first, last = 2**63, -1
        for file in self.files:
            for document in self._records(file):
                first = min(first, document["time_unix_nano"])
                last = max(last, document["time_unix_nano"])
        self.skipped = 0
        return (first, last) if last >= 0 else (0, 0)

    def _records(self, file: Path) -> Iterator[Document]:
        """The log documents of one file, in the order of its lines."""
        try:
            with opened(file) as lines:
                while line := lines.readline(MAX_LINE):
                    if not line.endswith(b"\n") and len(line) == MAX_LINE:
                        self.skipped += 1
                        while (rest := lines.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                            continue
                    elif line.strip() in (b"{", b"["):
                        yield from self._read(line + lines.read(MAX_LINE))
                    elif line.strip():
                        yield from self._read(line)
        except (OSError, EOFError, zstandard.ZstdError) as error:
            self.broken[str(file)] = str(error) or type(error).__name__

    def _read(self, line: bytes) -> list[Document]:
        try:
            return parsed(line)
        except Exception:  # whatever a line holds, its neighbours are read
            self.skipped += 1
            return []


def parsed(line: bytes) -> list[Document]:
    """
    The log documents of one line; none when it holds spans or metrics.

    Raises:
        Exception: it is neither a document of ours nor OTLP/JSON.
    """
    if _OTLP in line:
        shape = msgspec.json.decode(line)
        if "resourceLogs" in shape:
            request = Request(0, blake2b(line, digest_size=16).digest())
            return documents(decode(Signal.LOGS, line, encoding="json", request=request).batch)
    document = loads(line)
    if "resourceSpans" in document or "resourceMetrics" in document or "start" in document:
        return []
    if not isinstance(document["time_unix_nano"], int) or not isinstance(document["_id"], str):
        raise TypeError("no log document")
    return [document] if "level" in document else []


def found_at(path: Path) -> list[Path]:
    """
    The files that a path stands for.

    Raises:
        FileNotFoundError: there is none.
    """
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.is_file() and _is_log(file)]
    else:
        shape = re.compile(
            rf"{re.escape(path.stem)}-{STAMP}(?:\.\d{{1,6}})?{re.escape(path.suffix)}(?:\.gz|\.zst)?"
        )
        folder = path.parent
        beside = sorted(folder.iterdir()) if folder.is_dir() else []
        files = [file for file in beside if shape.fullmatch(file.name)]
        files += [path] if path.is_file() else []
    if not files:
        raise FileNotFoundError(f"{path}: no such file, and none that was put aside of it")
    return files


def _is_log(file: Path) -> bool:
    endings = [ending for ending in file.suffixes if ending not in PACKED]
    return bool(endings) and endings[-1] in ENDINGS


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A file open to be read line by line as bytes, unpacked."""
    with file.open("rb") as raw:
        if file.suffix == ".gz":
            with gzip.open(raw) as unpacked:
                yield unpacked
        elif file.suffix == ".zst":
            reader = zstandard.ZstdDecompressor(max_window_size=128 << 20).stream_reader(
                raw, read_across_frames=True
            )
            with io.BufferedReader(reader) as unpacked:
                yield unpacked
        else:
            yield raw


def _passes(wanted: Pipeline, document: Document) -> bool:
    """Whether the selector and the first line filters let a record pass."""
    message = document.get("message", "")
    return wanted.selected(stream_labels(document)) and all(test(message) for test in wanted.first)


def _sorted(found: Iterable[Document], *, newest_first: bool) -> Iterator[Document]:
    """Documents in order; those that do not fit into memory wait in temporary files."""
    runs: list[Iterator[Document]] = []
    with contextlib.ExitStack() as stack:
        part: list[tuple[tuple[int, str], bytes]] = []
        size = 0
        for document in found:
            data = dumps(document)
            part.append((order(document), data))
            size += len(data) + 200
            if size >= PART_BYTES:
                part.sort(reverse=newest_first)
                file = stack.enter_context(tempfile.TemporaryFile())
                file.writelines(data + b"\n" for _, data in part)
                file.seek(0)
                runs.append(map(loads, file))
                part, size = [], 0
        part.sort(reverse=newest_first)
        runs.append(loads(data) for _, data in part)
        yield from heapq.merge(*runs, key=order, reverse=newest_first)
