"""
The keys that every sending exporter shares, as the OpenTelemetry Collector has them.

An exporter's `Config` has fields of these types; what they mean is in the other
modules of this folder, around the exporter and not in it.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from collector.model import Duration, ExtensionId, OnRequest

Sizer = Literal["requests", "items", "bytes"]


class Batching(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests are joined before they are sent: `sending_queue: {batch: }`."""

    enabled: bool = True
    """Whether this section has an effect."""
    flush_timeout: Duration = Duration(0.2)
    """Send what there is after so long."""
    min_size: int = 8192
    """Send as soon as so much waits."""
    max_size: int = 0
    """Never send more at once; larger requests are cut. 0 = no limit."""
    sizer: Literal["", "items", "bytes"] = ""
    """What the sizes count. Empty: what the queue's sizer counts, `items` if that is requests."""

    def check(self) -> Iterator[str]:
        """What the types cannot say."""
        if self.flush_timeout <= 0:
            yield f"`flush_timeout` must be positive, found {self.flush_timeout:g}"
        if self.min_size < 0:
            yield f"`min_size` must be non-negative, found {self.min_size}"
        if self.max_size < 0:
            yield f"`max_size` must be non-negative, found {self.max_size}"
        if 0 < self.max_size < self.min_size:
            yield f"`max_size` ({self.max_size}) must be greater or equal to `min_size` ({self.min_size})"


class SendingQueue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A queue in front of an exporter: `sending_queue: `."""

    enabled: bool = True
    """Without the queue the sender waits until the exporter has taken its request."""
    num_consumers: int = 10
    """How many requests are sent at the same time."""
    queue_size: int = 1000
    """In memory: how much may wait. With `storage` the disk budget is the limit, and this is how
    many requests deliveries may run ahead of the oldest one that is not delivered."""
    sizer: Sizer = "requests"
    """What `queue_size` counts in memory."""
    block_on_overflow: bool = False
    """In memory: let the sender wait for room instead of refusing its request."""
    wait_for_result: bool = False
    """Answer the sender only after delivery; works with `storage`, too."""
    storage: ExtensionId = ""
    """The `file_storage` extension that keeps the queue on disk. Empty: the queue is in memory, and
    is lost with the process."""
    start: Literal["now", "oldest"] = "now"
    """With `storage`: where an exporter begins that was not there before."""
    batch: OnRequest[Batching] = None
    """Join requests before they are sent. A store keeps requests apart, because the identity of
    what it stores is made from them; it is given so many at once instead."""

    def check(self) -> Iterator[str]:
        """What the types cannot say."""
        if self.queue_size <= 0:
            yield "`queue_size` must be positive"
        if self.num_consumers <= 0:
            yield "`num_consumers` must be positive"
        if (
            self.batch is not None
            and not self.storage
            and self.batch.sizer in ("", self.sizer)
            and self.sizer != "requests"
            and self.batch.min_size > self.queue_size
        ):
            yield "`min_size` must be less than or equal to `queue_size`"


class RetryOnFailure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens when an exporter cannot take a request now: `retry_on_failure: `."""

    enabled: bool = True
    """Try again. Otherwise a request that fails once is given up."""
    initial_interval: Duration = Duration(5)
    """The wait after the first failure."""
    randomization_factor: float = 0.5
    """Each wait is drawn from so much around its length: 0.5 means from half to one and a half."""
    multiplier: float = 1.5
    """Each wait is so much longer than the one before."""
    max_interval: Duration = Duration(30)
    """No wait is longer, unless the other side asks for it."""
    max_elapsed_time: Duration | None = None
    """Give up after so long; 0 = never. Unless set: never with `storage`, 5 minutes in memory."""

    def check(self) -> Iterator[str]:
        """What the types cannot say."""
        for key in ("initial_interval", "max_interval", "max_elapsed_time", "multiplier"):
            value = getattr(self, key)
            if value is not None and value < 0:
                yield f"'{key}' must be non-negative"
        if not 0 <= self.randomization_factor <= 1:
            yield "'randomization_factor' must be within [0, 1]"
        if self.max_elapsed_time:
            for key in ("initial_interval", "max_interval"):
                if self.max_elapsed_time < getattr(self, key):
                    yield f"'max_elapsed_time' must not be less than '{key}'"


class ExporterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    How to deliver to one exporter, from its `Config`.

    Args:
        queue: None calls the exporter while the sender waits.
        retry: None hands every failure on.
        timeout_s: of one attempt; 0 = none.
    """

    queue: SendingQueue | None = None
    retry: RetryOnFailure | None = None
    timeout_s: float = 0.0

    @classmethod
    def of(cls, config: msgspec.Struct) -> "ExporterSettings":
        """Read the shared keys of an exporter; those that it does not have are off."""
        queue: SendingQueue | None = getattr(config, "sending_queue", None)
        retry: RetryOnFailure | None = getattr(config, "retry_on_failure", None)
        if not hasattr(config, "sending_queue") and not hasattr(config, "retry_on_failure"):
            return cls()  # `timeout` is then the exporter's own
        if queue is not None and not queue.enabled:
            queue = None
        if queue is not None and retry is None:
            retry = RetryOnFailure()
        return cls(queue=queue, retry=retry, timeout_s=float(getattr(config, "timeout", 0.0)))
