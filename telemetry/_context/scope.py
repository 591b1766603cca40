"""
The ids of the running scope: correlation, request, tenant, user, task, operation, own keys.

They live in an own ContextVar, keyed by attribute name, as an immutable-by-habit dict: binding
makes a new one, leaving a scope puts the old one back. An OpenTelemetry context alone would not
do, because instrumentation replaces it (ASGI middleware attaches a context built from headers).

The ids of a whole request are `Shared`: one object for all its tasks and threads, since what a
plain function binds in a worker thread would be gone when it returns. What is bound by
`bind_context` and `log_context` is nearer and wins.

Where they go: on every span at its start and on every log record (`_sdk/processors.py`); on the current
span, and on the server or consumer span above it, when they are bound after it started; into the
`baggage` header of outgoing calls for the few on the allow-list (`propagation`). An id on the
allow-list that arrives by baggage counts as bound, below everything bound here.
"""

import re
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import Any, Final, Self

from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, detach

from telemetry import _diagnostics, _native, _otel_context, _values
from telemetry._context import ids as _random
from telemetry._context.block import Decorator
from telemetry._values import Value
from telemetry.attributes import CONTEXT, CORRELATION_ID, OPERATION

ATTRIBUTE: Final = {keyword: attribute for attribute, keyword in CONTEXT.items()}
"""Keyword of the API, and an application's own spelling -> attribute."""
ENTRY: Final = "_otelier_entry"
"""Where a span keeps the server or consumer span that it belongs to."""
KEYS: Final = 32
"""At most so many keys in one scope: they are repeated on every span and record."""
SAFE: Final = re.compile(r"[\x21-\x7e]{1,128}")
"""What an id that travels in a header looks like."""

_NO_VERSION: Final = ~(0xF000 << 64 | 0xC000 << 48)
_VERSION_4: Final = 0x4000 << 64 | 0x8000 << 48
_EMPTY: Final[dict[str, Value]] = {}
_NO_NAMES: Final[frozenset[str]] = frozenset()
_plain_fields: Final[Callable[..., dict[str, Value] | None] | None] = getattr(
    _native.core, "fields", None
)
_scope: ContextVar[dict[str, Value]] = ContextVar("otelier_scope", default=_EMPTY)
_shared: ContextVar["Shared | None"] = ContextVar("otelier_shared", default=None)
_carried: tuple[str, ...] = (CORRELATION_ID,)


class Shared:
    """The ids of one request, the same in all its tasks and threads."""

    __slots__ = ("_lock", "ids")

    def __init__(self, ids: dict[str, Value]) -> None:
        self.ids = ids
        self._lock = threading.Lock()

    def add(self, added: Mapping[str, Value]) -> None:
        """Add ids, for all that follows in the request."""
        with self._lock:
            self.ids = _bounded({**self.ids, **added})


def carry(keywords: tuple[str, ...]) -> None:
    """Set the ids that may travel in baggage."""
    global _carried  # noqa: PLW0603 - one process has one allow-list
    _carried = tuple(ATTRIBUTE[keyword] for keyword in keywords)


def new_correlation_id() -> str:
    """A new random correlation id."""
    number = _random.bits(128) & _NO_VERSION | _VERSION_4
    text = f"{number:032x}"  # what `str(uuid.UUID(int=number))` gives, in a third of the time
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def bind_context(**ids: object) -> None:
    """
    Add ids to the running scope, for all that follows in it.

    A value of None means "not known" and changes nothing. The ids end with the request, task or
    `log_context` block that they were bound in, or with `clear_context()`.

    Args:
        ids: correlation_id, request_id, tenant_id, organization_id, user_id, conversation_id,
            session_id, task_id, order_id, batch_run_id, operation, or any key of your own.
    """
    try:
        added = read(ids)
        if added:
            _scope.set(_merged(added))
            _stamp_current(added, overwrite=True)
    except Exception as error:
        _diagnostics.fault("bind_context", error)


def set_request_context(
    *,
    request_id: object = None,
    correlation_id: object = None,
    tenant_id: object = None,
    organization_id: object = None,
    user_id: object = None,
    conversation_id: object = None,
    session_id: object = None,
    **ids: object,
) -> None:
    """
    Say whom the running request is for, as soon as it is known.

    As `bind_context` with the ids of a request spelled out, but for the whole request: what a
    dependency or a function in a worker thread says here holds in all other parts of the request.
    """
    try:
        added = read(
            {
                "request_id": request_id,
                "correlation_id": correlation_id,
                "tenant_id": tenant_id,
                "organization_id": organization_id,
                "user_id": user_id,
                "conversation_id": conversation_id,
                "session_id": session_id,
                **ids,
            }
        )
        if not added:
            return
        shared = _shared.get()
        if shared is not None:
            shared.add(added)
        own = _scope.get()
        nearer = {name: added[name] for name in added if shared is None or name in own}
        if nearer:
            _scope.set(_merged(nearer))
        _stamp_current(added, overwrite=True)
    except Exception as error:
        _diagnostics.fault("set_request_context", error)


def clear_context() -> None:
    """Forget all ids of the running scope."""
    _scope.set(_EMPTY)
    _shared.set(None)


def current_context() -> dict[str, Value]:
    """The ids of the running scope, by the keywords of the API; a copy."""
    try:
        return {CONTEXT.get(name, name): value for name, value in effective().items()}
    except Exception as error:
        _diagnostics.fault("current_context", error)
        return {}


class log_context(Decorator["log_context"]):  # noqa: N801 - used like a function, and named by the requirement
    """
    Add ids to the running scope for one block, function or coroutine, and then restore it exactly.

    Works as `with`, as `async with` and as a decorator of functions and coroutine functions;
    blocks nest. The span that is already running gets the ids that it does not have yet.

    Example:
        with log_context(tenant_id="t-1", operation="email.send"):
            logger.info("sending")
    """

    def __init__(self, **ids: object) -> None:
        self._ids = ids
        self._undo: list[tuple[Token[dict[str, Value]], Token[Context] | None]] = []

    def __enter__(self) -> Self:
        try:
            added = read(self._ids)
            token = _scope.set(_merged(added))
            travelling: Context | None = None
            for name in _carried:
                if name in added:
                    travelling = baggage.set_baggage(name, str(added[name]), travelling)
            self._undo.append((token, attach(travelling) if travelling is not None else None))
            _stamp_current(added, overwrite=False)
        except Exception as error:
            _diagnostics.fault("log_context", error)
        return self

    def _end(self, error: BaseException | None) -> None:  # noqa: ARG002 - ends the same either way
        try:
            if not self._undo:
                return
            token, travelling = self._undo.pop()
            if travelling is not None:
                detach(travelling)
            _scope.reset(token)
        except ValueError:
            # left in another context than entered (a generator closed elsewhere): that context
            # ends by itself, and the one that runs now was never changed
            return
        except Exception as failure:
            _diagnostics.fault("log_context", failure)

    def _again(self) -> "log_context":
        return log_context(**self._ids)


def put(attribute: str, value: Any) -> None:
    """Add one key to the running scope, of a context that ends by itself; stamps no span."""
    if type(value) is not str or len(value) > _values.ID_TEXT or not value.isascii():
        value = _values.clean(value)
    _scope.set(_merged({attribute: value}))


def enter(
    span: trace.Span, ids: dict[str, Value], context: Context
) -> tuple[Token[dict[str, Value]], Token[Context]]:
    """
    Make a span current that has the ids of its scope already, and begin that scope.

    Args:
        span: to attach.
        ids: by attribute, as `read` gives them.
        context: in which the span was started.

    Returns:
        What `leave` and `_otel_context.detach_context` take.
    """
    entries: dict[str, object] = dict(context)
    entries[_otel_context.SPAN_KEY] = span
    travelling = {name: str(ids[name]) for name in _carried if name in ids}
    if travelling:
        given: Any = entries.get(_otel_context.BAGGAGE_KEY)
        entries[_otel_context.BAGGAGE_KEY] = {**given, **travelling} if given else travelling
    return _scope.set(_merged(ids)), _otel_context.attach_context(Context(entries))


def stamp_entry(span: trace.Span, ids: Mapping[str, Value]) -> None:
    """Put ids on the server or consumer span that a span belongs to, where it has none."""
    entry: Any = getattr(span, ENTRY, None)
    if entry is not None and entry is not span and entry.is_recording():
        have = entry.attributes or ()
        missing = {
            name: value for name, value in ids.items() if name not in have and name != OPERATION
        }
        if missing:
            entry.set_attributes(missing)


def enter_empty() -> Token[dict[str, Value]]:
    """Begin a scope without ids; `leave` puts the ids back."""
    return _scope.set(_EMPTY)


def leave(token: Token[dict[str, Value]]) -> None:
    """Put back the ids from before `enter_empty`."""
    _scope.reset(token)


def begin_request(
    shared: Shared,
) -> tuple[Token[dict[str, Value]], Token[Shared | None]]:
    """Begin a request with these ids and no others; `end_request` puts back what was there."""
    return _scope.set(_EMPTY), _shared.set(shared)


def end_request(tokens: tuple[Token[dict[str, Value]], Token[Shared | None]]) -> None:
    """Put back the ids from before `begin_request`."""
    _scope.reset(tokens[0])
    _shared.reset(tokens[1])


def bound() -> dict[str, Value]:
    """What was bound in this process: for the request, and nearer."""
    own, shared = _scope.get(), _shared.get()
    if shared is None:
        return own
    return {**shared.ids, **own} if own else shared.ids


def carried() -> tuple[str, ...]:
    """The attributes that may travel in baggage."""
    return _carried


def effective(context: Context | None = None) -> dict[str, Value]:
    """The ids in force in a context (or the current one), by attribute name: what arrived by baggage, then what was bound here."""
    own = _scope.get() if _shared.get() is None else bound()
    if not (_otel_context.current_context() if context is None else context).get(
        _otel_context.BAGGAGE_KEY
    ):
        return own
    if all(map(own.__contains__, _carried)):
        return own  # whatever has arrived, what was bound here wins
    arrived = arrived_ids(context)
    return {**own, **{key: arrived[key] for key in arrived if key not in own}} if arrived else own


def arrived_ids(context: Context | None) -> dict[str, Value]:
    """The ids on the allow-list that the baggage of `context` has, if they look like ids."""
    entries = baggage.get_all(context)
    if not entries:
        return _EMPTY
    return {
        name: value
        for name in _carried
        if isinstance(value := entries.get(name), str) and SAFE.fullmatch(value)
    }


def read(ids: Mapping[str, object]) -> dict[str, Value]:
    """Keywords -> attributes; ids become short text, own keys keep their type, None is left out."""
    if _plain_fields is not None and type(ids) is dict:
        plain = _plain_fields(ids, _NO_NAMES, ATTRIBUTE, True)
        if plain is not None:
            return plain
    result: dict[str, Value] = {}
    for keyword, value in ids.items():
        if value is None:
            continue
        name = ATTRIBUTE.get(keyword, keyword)
        if type(value) is str and len(value) <= _values.ID_TEXT and value.isascii():
            result[name] = value  # nothing to do, as with most ids
            continue
        result[name] = (
            _values.text(value, _values.ID_TEXT) if name in CONTEXT else _values.clean(value)
        )
    return result


def _merged(added: dict[str, Value]) -> dict[str, Value]:
    merged = {**_scope.get(), **added}
    return merged if len(merged) <= KEYS else _bounded(merged)


def _bounded(merged: dict[str, Value]) -> dict[str, Value]:
    while len(merged) > KEYS:
        merged.pop(next(iter(merged)))
    return merged


def _stamp_current(added: Mapping[str, Value], *, overwrite: bool) -> None:
    """Put ids on the span that runs and on the server or consumer span that it belongs to."""
    span: Any = trace.get_current_span()
    if not span.is_recording():
        return
    entry = getattr(span, ENTRY, None)
    for target in (span, entry) if entry is not None and entry is not span else (span,):
        if target.is_recording():
            have: Any = () if overwrite else (getattr(target, "attributes", None) or ())
            target.set_attributes(
                {
                    name: value
                    for name, value in added.items()
                    # what a step does is no fact about the request that it is part of
                    if name not in have and (target is span or name != OPERATION)
                }
            )
