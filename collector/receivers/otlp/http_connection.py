"""The connections of OTLP/HTTP: what is no request is answered as a `google.rpc.Status`."""

from collector.errors import INVALID_ARGUMENT, UNAVAILABLE
from collector.http.server import Connection as Served
from collector.otlp import status


class Connection(Served):
    """One connection of the receiver."""

    def refusal_body(self, code: int, text: str) -> bytes:
        """The refusal as a Status in JSON."""
        return status(UNAVAILABLE if code == 503 else INVALID_ARGUMENT, text, None, "json")
