"""Why a record was dropped: the words of the ledger."""

from typing import Final

QUEUE_FULL: Final = "queue_full"
TOO_LARGE: Final = "too_large"
EXPORT_FAILED: Final = "export_failed"
SHUTDOWN: Final = "shutdown"
CONVERSION_ERROR: Final = "conversion_error"
FORK_DISCARD: Final = "fork_discard"
SPOOL_EXPIRED: Final = "spool_expired"
REASONS: Final = (
    QUEUE_FULL,
    TOO_LARGE,
    EXPORT_FAILED,
    SHUTDOWN,
    CONVERSION_ERROR,
    FORK_DISCARD,
    SPOOL_EXPIRED,
)
