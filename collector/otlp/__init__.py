"""
OTLP on the wire: the one place that knows protobuf.

`codec` turns bytes into a `Batch` and back; `sizing` measures before anything is parsed, `limits` cuts
what is too large, `repair` saves the neighbours of what is broken, `json` is the other encoding,
`server_status` is what we answer and `client_status` what we are answered. Importers name this package.
"""

from collector.otlp.client_status import (
    ExportSuccess,
    read_response,
    read_retry_info,
    read_status,
)
from collector.otlp.codec import (
    BAD_IDS,
    GROUPS,
    NOUNS,
    REQUESTS,
    SHAPES,
    Decoded,
    Encoding,
    count,
    decode,
    encode,
    encode_json,
    items,
    new_message,
    points,
    request_key,
    require_upb,
    resources,
)
from collector.otlp.limits import TOO_LARGE
from collector.otlp.repair import Limits
from collector.otlp.server_status import response, retry_info, shorten, status
from collector.otlp.value_text import attribute_text

__all__ = [
    "BAD_IDS",
    "GROUPS",
    "NOUNS",
    "REQUESTS",
    "SHAPES",
    "TOO_LARGE",
    "Decoded",
    "Encoding",
    "ExportSuccess",
    "Limits",
    "attribute_text",
    "count",
    "decode",
    "encode",
    "encode_json",
    "items",
    "new_message",
    "points",
    "read_response",
    "read_retry_info",
    "read_status",
    "request_key",
    "require_upb",
    "resources",
    "response",
    "retry_info",
    "shorten",
    "status",
]
