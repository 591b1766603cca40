"""
An exporter of our own: log records of level error and above, as JSON, to a webhook.

It is named in YAML by its import string, `alert_webhook:AlertWebhook`, so nothing is registered.
The queue, retries and dead letters are the collector's: two keys in `Config` switch them on, and
errors say whether another try is worth it.
"""

import json
from collections.abc import Iterator
from typing import ClassVar, Self

import msgspec

from collector.documents.build import documents
from collector.errors import Retryable
from collector.http.client import Client
from collector.http.retry_after import failure_of, problem_of, reason_of
from collector.model import Batch, Duration, Host, Secret, Signal
from collector.sending_queue.config import RetryOnFailure, SendingQueue


class AlertWebhook:
    """Posts what failed, one request for each batch that holds failures."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the exporter."""

        url: str
        """Where to post."""
        token: Secret = Secret()
        """Sent as `Authorization: Bearer`; never shown."""
        min_severity: int = 17
        """The least severity number: 17 is ERROR."""
        timeout: Duration = Duration(10)
        """How long one attempt may take."""
        sending_queue: SendingQueue | None = msgspec.field(default_factory=SendingQueue)
        """The queue in front; on, in memory, by default."""
        retry_on_failure: RetryOnFailure | None = msgspec.field(default_factory=RetryOnFailure)
        """How it tries again."""

        def check(self) -> Iterator[str]:
            """What the types cannot say."""
            if problem := problem_of(self.url):
                yield f"url: {problem}"

    signals: ClassVar = frozenset({Signal.LOGS})

    def __init__(self, config: Config, host: Host) -> None:
        self.config = config
        self.host = host
        self._client: Client | None = None
        self._headers = {"content-type": "application/json"}
        if config.token:
            self._headers["authorization"] = f"Bearer {config.token}"

    def describe(self) -> str:
        """Where it posts to."""
        return self.config.url

    async def __aenter__(self) -> Self:
        """Nothing is sent yet: the other side may start later."""
        self._client = Client()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def __call__(self, batch: Batch) -> None:
        """
        Post the failures of a batch.

        Raises:
            Permanent: the webhook rejects them.
            Retryable: not now, or there is no answer.
        """
        failures = [
            {key: each[key] for key in ("service", "level", "message", "trace") if key in each}
            for each in documents(batch)
            if each.get("severity_number", 0) >= self.config.min_severity
        ]
        if not failures or self._client is None:
            return
        body = json.dumps({"failures": failures}).encode()
        try:
            answer = await self._client.post(self.config.url, self._headers, body)
        except OSError as error:
            raise Retryable(f"cannot post to {self.config.url}: {reason_of(error)}") from error
        if answer.status >= 300:
            raise failure_of(self.config.url, answer)
        self.host.stats.add("alert_webhook_failures", len(failures), exporter=self.host.id)
