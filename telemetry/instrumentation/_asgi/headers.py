"""
Headers: which ids of a request are taken over, what may arrive as baggage, what an answer carries.

An id from outside goes into logs, metrics' exemplars, file lines, terminals and the headers of
answers, so it is taken only if it is short and made of harmless characters; the same header twice
with different values is no id. Everything is checked on bytes, before anything is decoded.
"""

import re
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from opentelemetry.trace import SpanContext

REQUEST_ID: Final = b"x-request-id"
CORRELATION_ID: Final = b"x-correlation-id"
TRACE_RESPONSE: Final = b"traceresponse"
SERVER_TIMING: Final = b"server-timing"
BAGGAGE_BYTES: Final = 8192
BAGGAGE_ENTRIES: Final = 64
_PROPAGATION: Final = (b"baggage", b"tracestate")

Header = tuple[bytes, bytes]
_ID = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")


def usable(value: bytes) -> bool:
    """Whether an id from outside may be used."""
    return _ID.fullmatch(value) is not None


def ids(headers: Iterable[Sequence[bytes]]) -> tuple[str | None, str | None]:
    """The request id and the correlation id that came with a request, where they can be used."""
    found: dict[bytes, set[bytes]] = {REQUEST_ID: set(), CORRELATION_ID: set()}
    for name, value in headers:
        if len(name) in (12, 16) and (values := found.get(name.lower())) is not None:
            values.add(value)
    return _one(found[REQUEST_ID]), _one(found[CORRELATION_ID])


def _one(values: set[bytes]) -> str | None:
    if len(values) != 1:
        return None
    value = next(iter(values))
    return value.decode("ascii") if usable(value) else None


def without_strangers(scope: MutableMapping[str, Any], *, distrusted: Sequence[str]) -> None:
    """
    Take out of a request's headers what its server span must not believe.

    Baggage and trace state beyond the limits are taken out whole, since a parser would already
    pay for them; of baggage that is left, the entries whose keys are our ids.
    """
    headers = scope["headers"]
    if not any(name.lower() in _PROPAGATION for name, _ in headers):
        return
    kept: list[Header] = []
    sizes = dict.fromkeys(_PROPAGATION, 0)
    entries = dict.fromkeys(_PROPAGATION, 0)
    for name, value in headers:
        kind = name.lower()
        if kind in sizes:
            sizes[kind] += len(value)
            entries[kind] += value.count(b",") + 1
    for name, value in headers:
        kind = name.lower()
        if kind in sizes:
            if sizes[kind] > BAGGAGE_BYTES or entries[kind] > BAGGAGE_ENTRIES:
                continue
            if kind == b"baggage" and distrusted:
                value = _without(value, distrusted)  # noqa: PLW2901 - the header, without entries
                if not value:
                    continue
        kept.append((name, value))
    scope["headers"] = kept


def _without(value: bytes, keys: Sequence[str]) -> bytes:
    entries = value.split(b",")
    kept = [
        entry
        for entry in entries
        if unquote(entry.partition(b"=")[0].decode("latin-1")).strip() not in keys
    ]
    return value if len(kept) == len(entries) else b",".join(kept)


def of_answer(
    request_id: str, correlation_id: str, context: SpanContext | None, trace_header: str
) -> list[Header]:
    """What an answer carries."""
    headers = [
        (REQUEST_ID, request_id.encode("latin-1")),
        (CORRELATION_ID, correlation_id.encode("latin-1")),
    ]
    if context is not None and context.is_valid and trace_header != "none":
        flags = int(context.trace_flags) & 0xFF
        text = f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"
        if trace_header in ("traceresponse", "both"):
            headers.append((TRACE_RESPONSE, text.encode()))
        if trace_header in ("server-timing", "both"):
            headers.append((SERVER_TIMING, f'traceparent;desc="{text}"'.encode()))
    return headers


def added(own: Iterable[Sequence[bytes]] | None, extra: Sequence[Header]) -> list[Any]:
    """The application's headers and ours; its own value of a header stays."""
    headers: list[Any] = [] if own is None else list(own)
    present = {bytes(name).lower() for name, _ in headers}
    headers.extend(
        header for header in extra if header[0] not in present or header[0] == SERVER_TIMING
    )
    return headers
