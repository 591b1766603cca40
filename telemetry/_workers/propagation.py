"""
What travels with an order from role to role, in the headers of its message.

The trace and its baggage go through the global propagator, as everywhere. The correlation and the
order id have headers of their own besides, so that a broker or a propagator that drops baggage, and
a role that links instead of continuing, cannot lose them. The time of sending is written at every
send, never kept from the one before: a message that is sent again is a new message.

Headers come from outside: names and values may be bytes, values that do not look like ids are
dropped, and a clock that runs ahead gives a wait of zero.
"""

import re
import time
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from opentelemetry import propagate

from telemetry import _diagnostics, _values
from telemetry._context import scope
from telemetry.attributes import CORRELATION_ID, ORDER_ID

CORRELATION: Final = "x-correlation-id"
ORDER: Final = "x-order-id"
SENT_AT: Final = "x-enqueued-at"
HEADERS: Final = 64
MOST: Final = 1000
"""More headers than a message has; what has no end ends here."""
LONGEST: Final = 8192

_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRAVELLING: Final = {"correlation_id": CORRELATION, "order_id": ORDER}


def inject(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The headers of a message, with ours."""
    carrier: dict[str, str] = {}
    try:
        carrier.update(islice({} if headers is None else headers.items(), MOST))
        own: dict[str, str] = {}
        propagate.inject(own)
        here = scope.effective()
        for header, name in ((CORRELATION, CORRELATION_ID), (ORDER, ORDER_ID)):
            value = here.get(name)
            if isinstance(value, str) and _ID.fullmatch(value):
                own[header] = value
        own[SENT_AT] = f"{time.time():.6f}"
        for name in [name for name in carrier if _values.text(name).lower() in own]:
            del carrier[name]
        carrier.update(own)
    except Exception as error:
        _diagnostics.say("inject", f"headers could not be made: {_values.text(error)}")
    return carrier


def read(headers: Mapping[Any, Any]) -> dict[str, str]:
    """Headers as text, with lower-case names; what is neither text nor bytes is left out."""
    carrier: dict[str, str] = {}
    for name, value in islice(headers.items(), HEADERS):
        text = _decoded(value)
        key = _decoded(name)
        if key is not None and text is not None:
            carrier[key.lower()] = text
    return carrier


def ids(carrier: Mapping[str, str]) -> dict[str, str]:
    """The ids that travelled, by the keywords of `log_context`."""
    return {
        keyword: value
        for keyword, header in _TRAVELLING.items()
        if (value := carrier.get(header)) is not None and _ID.fullmatch(value)
    }


def waited(carrier: Mapping[str, str]) -> float | None:
    """Seconds since the message was sent; None when it does not say."""
    sent = carrier.get(SENT_AT)
    if sent is None:
        return None
    try:
        seconds = time.time() - float(sent)
    except ValueError:
        return None
    return max(seconds, 0.0) if seconds == seconds else None  # noqa: PLR0124 - not a number


def _decoded(value: Any) -> str | None:
    if isinstance(value, (bytes, bytearray)):
        value = bytes(value[:LONGEST]).decode("utf-8", "replace")
    return value[:LONGEST] if isinstance(value, str) else None
