"""The keys of `exporters: mongodb:`, and what is wrong with them before anything connects."""

import msgspec
from pymongo import uri_parser
from pymongo.errors import PyMongoError

from collector.model import Duration, OnRequest, Secret
from collector.sending_queue.config import RetryOnFailure, SendingQueue
from collector.stores.retention import table
from collector.stores.routing import Routing


class MongoDBConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of `exporters: mongodb:`."""

    uri: Secret = Secret("mongodb://localhost:27017")
    """Connection string, with user and password where needed; shown nowhere."""
    database: str = "telemetry"
    """Database that holds the collections."""
    timeout: Duration = Duration(10)
    """How long one insert may take, from choosing a server to the confirmation."""
    query_timeout: Duration = Duration(10)
    """A question that takes longer is ended with an error."""
    events: dict[str, str] = {}
    """Which collection the events of a name, or of a beginning and `*`, are kept in: analytics,
    ml_inferences, audit_logs, a name of your own that ends in _events, or level."""
    retention: dict[str, int | str] = {}
    """How long the documents of a collection are kept: days, a duration (36h, 30d) or
    unlimited."""
    sending_queue: OnRequest[SendingQueue] = None
    """A queue in front of this exporter, see "Delivery"; off until the key is there."""
    retry_on_failure: OnRequest[RetryOnFailure] = None
    """How the queue tries again, see "Delivery"."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, without showing the URI."""
        Routing(self.events)
        table(self.retention)
        scheme, _, rest = str(self.uri).partition("://")
        try:
            if scheme not in ("mongodb", "mongodb+srv"):
                raise ValueError
            # The SRV form would ask the name server, which is no business of a validation.
            uri_parser.parse_uri(f"mongodb://{rest}", validate=False)
        except (PyMongoError, ValueError):
            raise ValueError(
                "uri: not a MongoDB connection string; write mongodb://[user:password@]host"
                "[:port][/?options], with %XX for special characters in user and password"
            ) from None
        if not self.database or len(self.database) > 63 or set(self.database) & set('/\\. "$\0'):
            raise ValueError(
                f"database: {self.database!r} is no name of a database; use letters, digits, _ and -"
            )
