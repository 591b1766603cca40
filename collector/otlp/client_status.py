"""
What a client of OTLP is answered: the response of an export, and `google.rpc.Status`, as plain values.

The other side is not trusted. What cannot be read says nothing (an unreadable success is a success,
an unreadable error has the status line alone), texts are shortened before they are logged, and a
wait that it asks for is bounded, so that a wrong answer cannot stop a queue for days.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from collector.errors import bounded
from collector.model import Signal
from collector.otlp.server_status import RESPONSES, shorten


@dataclass(slots=True, frozen=True)
class ExportSuccess:
    """
    A success, perhaps a partial one.

    Args:
        rejected: items that were rejected.
        message: why, or a warning; empty when there is neither.
    """

    rejected: int = 0
    message: str = ""


@dataclass(slots=True, frozen=True)
class Failure:
    """
    What an error says about itself.

    Args:
        message: its text, empty when there is none.
        delay_s: how long to wait before the next try, None when it does not ask for one.
    """

    message: str = ""
    delay_s: float | None = None


def read_response(signal: Signal, data: bytes, *, json: bool = False) -> ExportSuccess:
    """
    The body of a success.

    Args:
        signal: what the request was about.
        data: the body.
        json: whether it is JSON.
    """
    kind, field, member = RESPONSES[signal]
    if json:
        partial = _member(_object(data), "partialSuccess", dict) or {}
        rejected = _whole(partial.get(member))
        return ExportSuccess(rejected, shorten(_member(partial, "errorMessage", str) or ""))
    try:
        found = kind.FromString(data).partial_success
    except DecodeError:
        return ExportSuccess()
    return ExportSuccess(max(0, getattr(found, field)), shorten(found.error_message))


def read_status(data: bytes, *, json: bool = False) -> Failure:
    """
    The body of an error, or `grpc-status-details-bin`.

    Args:
        data: a `google.rpc.Status`.
        json: whether it is JSON.
    """
    if json:
        status = _object(data)
        details = _member(status, "details", list) or []
        texts = [_member(each, "retryDelay", str) for each in details if isinstance(each, dict)]
        delay = next((text for text in texts if text), "")
        return Failure(shorten(_member(status, "message", str) or ""), _seconds(delay))
    try:
        message = Status.FromString(data)
    except DecodeError:
        return Failure()
    for detail in message.details:
        info = RetryInfo()
        try:
            if detail.Unpack(info):
                wait = info.retry_delay
                return Failure(shorten(message.message), bounded(wait.seconds + wait.nanos / 1e9))
        except DecodeError:
            continue
    return Failure(shorten(message.message))


def read_retry_info(data: bytes) -> float | None:
    """The wait in a `google.rpc.RetryInfo` that came alone, None when there is none."""
    try:
        wait = RetryInfo.FromString(data).retry_delay
    except DecodeError:
        return None
    return bounded(wait.seconds + wait.nanos / 1e9)


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _member(owner: dict[str, Any], name: str, kind: type) -> Any:
    value = owner.get(name)
    return value if isinstance(value, kind) else None


def _whole(value: Any) -> int:
    """A 64-bit integer, which JSON writes as text or as a number."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _seconds(text: str) -> float | None:
    """A duration in protobuf's JSON: `1.5s`."""
    number = text.removesuffix("s")
    if number == text or not number.isascii() or not number.replace(".", "", 1).isdigit():
        return None
    return bounded(float(number))
