"""
The keys of `extensions: file_storage:`, the durable log's.

The OpenTelemetry Collector's keys are all here, so that its configurations run; those that make no
sense for a log of segments say so. The other keys are ours.
"""

import re

import msgspec

from collector.model import Duration


class Compaction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Accepted and without effect: segments are deleted as a whole, nothing is compacted."""

    on_start: bool = False
    """No effect."""
    on_rebound: bool = False
    """No effect."""
    directory: str = ""
    """No effect."""
    cleanup_on_start: bool = False
    """No effect."""
    max_transaction_size: int = 65536
    """No effect."""
    rebound_needed_threshold_mib: int = 100
    """No effect."""
    rebound_trigger_threshold_mib: int = 10
    """No effect."""
    check_interval: Duration = Duration(5)
    """No effect."""


class WalConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of `extensions: file_storage:`."""

    directory: str = "data/queue"
    """The folder of the log. One collector at a time may use it."""
    max_bytes: int = 4 << 30
    """Disk budget. From 90 % of it on new requests are refused, below 75 % they are taken."""
    max_age: Duration = Duration(0)
    """Refuse new requests when the oldest that is not delivered is nearly so old; 0 = never."""
    segment_bytes: int = 16 << 20
    """Size of one file of the log. A file is deleted when all exporters have delivered it."""
    reserve_bytes: int = 8 << 20
    """Disk space that is kept aside, so that cursors can still be saved on a full disk."""
    dead_letter_bytes: int = 64 << 20
    """How much each exporter may put aside as undeliverable before its queue stops."""
    fsync: bool = True
    """Force data to disk before a request is answered. Without it a power cut loses
    acknowledged data."""
    create_directory: bool = True
    """Make the folder when it is missing."""
    directory_permissions: str = "0750"
    """Mode of the folders made, in octal digits."""
    timeout: Duration = Duration(1)
    """Accepted and without effect: the folder's lock is taken at once or not at all."""
    recreate: bool = False
    """Only `false`: damaged files are kept aside and never replaced by empty ones."""
    compaction: Compaction | None = None
    """Accepted and without effect."""

    def __post_init__(self) -> None:
        """Check what the types cannot say."""
        if not self.directory:
            raise ValueError("directory must be non-empty")
        if self.segment_bytes < 64 << 10:
            raise ValueError("segment_bytes must be at least 65536")
        if self.max_bytes < 4 * self.segment_bytes:
            raise ValueError("max_bytes must be at least four times segment_bytes")
        if self.reserve_bytes < 0 or self.dead_letter_bytes < 0:
            raise ValueError("reserve_bytes and dead_letter_bytes must not be negative")
        if self.max_age < 0:
            raise ValueError("max_age must not be negative")
        if self.recreate:
            raise ValueError(
                "'recreate: true' would throw acknowledged data away; remove the key: damaged "
                "files are kept aside and the collector starts"
            )
        if not re.fullmatch("0?[0-7]{3}", self.directory_permissions):
            raise ValueError(
                f'directory_permissions "{self.directory_permissions}" is not an octal mode; '
                'write it in quotes, like "0750"'
            )
