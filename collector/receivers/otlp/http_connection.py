"""The connections of OTLP/HTTP: what is no request is answered as a `google.rpc.Status`."""

from collector.errors import INVALID_ARGUMENT, UNAVAILABLE
from collector.http.server import Connection as Served
from collector.otlp import status
from collector.receivers.otlp.resends import unread


class Connection(Served):
    """One connection of the receiver; the scope of each request leads back to it."""

    lost = False
    lost_well = False

    def on_message_begin(self) -> None:
        """A request begins: the application may ask how its answer fares."""
        super().on_message_begin()
        self.scope["otelier.exchange"] = self  # type: ignore[typeddict-unknown-key]  # ours

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember how it ended."""
        self.lost, self.lost_well = True, exc is None
        super().connection_lost(exc)

    def broken(self) -> bool:
        """Whether the sender can hear no answer any more."""
        return self.lost

    def delivered(self) -> bool | None:
        """Whether the answer has arrived; None while that is not known."""
        if self.lost:
            return self.lost_well
        return None if unread(self.transport) else True

    def refusal_body(self, code: int, text: str) -> bytes:
        """The refusal as a Status in JSON."""
        return status(UNAVAILABLE if code == 503 else INVALID_ARGUMENT, text, None, "json")
