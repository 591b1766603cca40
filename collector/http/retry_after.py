"""
What an HTTP exporter makes of addresses and answers: which failures are worth another try, and when.

Not the property of one exporter: every component that sends over HTTP needs the same table. OTLP
1.11 ("Failures") decides it: 429, 502, 503 and 504 are tried again, after `Retry-After` when the
server gives one. Answers about the data (400, 413, 422) are `Permanent`: the queue then halves the
request and finds the item that is meant. All others are about us (credential, path, a redirect):
`Denied`, because every part of the request would be rejected in the same way.
"""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Final
from urllib.parse import urlsplit

from collector.errors import Denied, Permanent, Retryable, bounded, printable
from collector.http.client import LARGEST_ANSWER, Answer

RETRYABLE: Final = frozenset({429, 502, 503, 504})
ABOUT_THE_DATA: Final = frozenset({400, 413, 422})
"""Answers that another part of the same request may not get."""


def problem_of(url: str) -> str:
    """Why an address cannot be used; empty when it can. A password in it is not repeated."""
    if "@" in url:
        return "put the credential into `headers`, it would be shown here"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f'cannot use "{url}": {error}'
    if parts.scheme not in ("http", "https"):
        return f'"{url}" must begin with http:// or https://'
    if not parts.hostname or port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        return f'cannot use "{url}": write http://host:port'
    return ""


def failure_of(
    url: str, answer: Answer, text: str = "", asked_s: float | None = None
) -> Permanent | Retryable:
    """
    What an answer that is no success amounts to.

    Args:
        url: where the request went, for the message.
        answer: of the server.
        text: what its body says in the exporter's own format; empty when it says nothing.
        asked_s: how long the body asks to wait; the header `Retry-After` wins over it.
    """
    text = text or ("" if answer.json else plain(answer))
    said = f"{url} answered {answer.status}"
    if text:
        said += f": {printable(text)}"
    if answer.status in RETRYABLE:
        asked = retry_after(answer.headers)
        delay = asked if asked is not None else asked_s
        return Retryable(said, delay if delay is not None else 0.0)
    if answer.status in ABOUT_THE_DATA:
        return Permanent(said)
    if 300 <= answer.status < 400:
        target = printable(answer.headers.get("location", ""))[:200]
        return Denied(f"{said}: redirects to another place ({target}) are not followed")
    return Denied(said)


def plain(answer: Answer) -> str:
    """The beginning of an error in text/plain."""
    if not answer.headers.get("content-type", "").startswith("text/plain"):
        return ""
    return answer.body[: LARGEST_ANSWER // 256].decode("utf-8", "replace").strip()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds from now; it is a number or a date."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return bounded(float(text[:12]))
    try:
        return bounded(parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None


def reason_of(error: OSError) -> str:
    """An error of the network in words."""
    return error.strerror or str(error) or type(error).__name__
