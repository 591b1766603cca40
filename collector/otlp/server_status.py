"""
What a server of OTLP says back, as bytes: the response of an export, and `google.rpc.Status`.

An OTLP answer is always in the encoding of its request. A response without `partial_success` is
an empty message, `{}` in JSON; merely touching the field would make it `{"partialSuccess":{}}`,
so it is built only when there is something to say.
"""

import math
from typing import Any, Final, Literal

import msgspec
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from collector.errors import INVALID_ARGUMENT
from collector.model import Signal

TEXT_LIMIT: Final = 1024
"""Longest text of an answer, in characters: senders log it."""
RESPONSES: Final[dict[Signal, tuple[Any, str, str]]] = {
    Signal.TRACES: (
        trace_service_pb2.ExportTraceServiceResponse,
        "rejected_spans",
        "rejectedSpans",
    ),
    Signal.METRICS: (
        metrics_service_pb2.ExportMetricsServiceResponse,
        "rejected_data_points",
        "rejectedDataPoints",
    ),
    Signal.LOGS: (
        logs_service_pb2.ExportLogsServiceResponse,
        "rejected_log_records",
        "rejectedLogRecords",
    ),
}


def shorten(text: str) -> str:
    """A text that fits into an answer."""
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 3] + "..."


def response(
    signal: Signal, rejected: int, message: str, encoding: Literal["protobuf", "json"]
) -> bytes:
    """
    The body of a success.

    Args:
        signal: what the request was about.
        rejected: items that were rejected.
        message: why, or a warning; empty when there is neither.
        encoding: how the request was written.
    """
    kind, field, member = RESPONSES[signal]
    text = shorten(message)
    if encoding == "json":
        if not rejected and not text:
            return b"{}"
        partial: dict[str, str] = {}
        if rejected:
            partial[member] = str(rejected)  # a 64-bit integer is text in JSON
        if text:
            partial["errorMessage"] = text
        return msgspec.json.encode({"partialSuccess": partial})
    if not rejected and not text:
        return b""
    made = kind()
    if rejected:
        setattr(made.partial_success, field, rejected)
    if text:
        made.partial_success.error_message = text
    data: bytes = made.SerializeToString()
    return data


def duration(seconds: float) -> Duration:
    """Whole seconds, at least one: some clients read zero as "at once"."""
    return Duration(seconds=max(1, math.ceil(seconds)))


def retry_info(delay_s: float) -> bytes:
    """`google.rpc.RetryInfo` for gRPC metadata."""
    data: bytes = RetryInfo(retry_delay=duration(delay_s)).SerializeToString()
    return data


def status(
    code: int, message: str, delay_s: float | None, encoding: Literal["protobuf", "json"]
) -> bytes:
    """
    `google.rpc.Status`: the body of every error, and `grpc-status-details-bin`.

    Args:
        code: the gRPC code.
        message: what is wrong and what to do.
        delay_s: seconds to wait before the next try; None when a resend would fail again.
        encoding: how the request was written.
    """
    text = shorten(message)
    if encoding == "json":
        made: dict[str, Any] = {"code": code, "message": text}
        if delay_s is not None:
            wait = f"{duration(delay_s).seconds}s"
            made["details"] = [
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": wait}
            ]
        elif code == INVALID_ARGUMENT:
            made["details"] = [
                {
                    "@type": "type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations": [{"field": "body", "description": text}],
                }
            ]
        return msgspec.json.encode(made)
    answer = Status(code=code, message=text)
    detail = AnyMessage()
    if delay_s is not None:
        detail.Pack(RetryInfo(retry_delay=duration(delay_s)))
        answer.details.append(detail)
    elif code == INVALID_ARGUMENT:
        violation = BadRequest.FieldViolation(field="body", description=text)
        detail.Pack(BadRequest(field_violations=[violation]))
        answer.details.append(detail)
    data: bytes = answer.SerializeToString()
    return data
