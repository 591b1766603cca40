"""
How much a sender may ask of the receiver: at once, and in one request.

The OpenTelemetry Collector has no such section; the defaults are meant to be left alone. Sizes of
bodies are keys of the transports, because they are its keys there.
"""

import msgspec

from collector.otlp import Limits as OtlpLimits

MEBIBYTE = 1 << 20


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on requests, over both transports."""

    max_requests: int = 256
    """Requests in work at once; one more is refused for now."""
    max_connections: int = 1_000
    """Connections at once, to each transport, or a quarter of the file descriptors that the process may
    have, if that is less. One more over HTTP costs the one that has been idle
    longest its place; over gRPC it is rejected."""
    max_in_flight_size: int = 256 * MEBIBYTE
    """Bytes of memory for all requests in work, estimated before they are decoded; what goes beyond
    is refused for now."""
    max_items: int = 50_000
    """Spans, metric points or log records in one request; more are rejected before decoding."""
    max_groups: int = 10_000
    """Resources in one request, and scopes; more are rejected before decoding."""
    max_elements: int = 1_000_000
    """Messages of any kind in one request (attributes, events, values); more are rejected before
    decoding."""
    max_attributes: int = 1_000
    """Attributes of one item, resource or scope; the rest is cut off and counted."""
    max_key_size: int = 1024
    """Bytes of an attribute's name; the rest is cut off and counted."""
    max_value_size: int = 64 << 10
    """Bytes of one text or bytes value in an attribute; the rest is cut off and counted."""
    max_record_size: int = MEBIBYTE
    """Bytes of one span, log record or data point. What is larger loses the end of its body, its
    last events, links or attributes, counted; what is too large even then is rejected alone."""

    def check(self) -> list[str]:
        """What is wrong with these settings, one text each."""
        return [
            f"{name} must be greater than zero"
            for name in self.__struct_fields__
            if getattr(self, name) <= 0
        ]

    def inside(self) -> OtlpLimits:
        """Those that the decoder keeps."""
        return OtlpLimits(
            items=self.max_items,
            groups=self.max_groups,
            attributes=self.max_attributes,
            elements=self.max_elements,
            key=self.max_key_size,
            value=self.max_value_size,
            record=self.max_record_size,
        )
