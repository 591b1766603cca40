"""
What the two OTLP exporters share: TLS towards a server, headers, and what an answer amounts to.

The table of OTLP 1.11 ("Failures") decides which answers are worth another try. Answers about the
data (400, INVALID_ARGUMENT, too large) are `Permanent`: the queue then halves the request and finds
the item that is meant. Answers about us (credential, path, a broken server) are `Denied`: every
piece would be rejected in the same way, so the request is put aside as a whole.
"""

import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from collector.errors import StartFailed, printable
from collector.model import Batch, Host, Secret
from collector.otlp import ExportSuccess
from collector.sending_queue.config import SendingQueue
from collector.stats import QuietLog

HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
SMALL: Final = 16 << 10
"""Requests up to this size are compressed on the event loop: a thread costs more than they do."""
SERVICES: Final = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """TLS towards the other side."""

    insecure: bool = False
    """gRPC: no TLS. HTTP takes its answer from `http://` or `https://`."""
    insecure_skip_verify: bool = False
    """Take any certificate. Only over HTTP."""
    server_name_override: str = ""
    """The name that the certificate must have, when it is not the host's."""
    ca_file: str = ""
    """Authorities to trust; empty means those of the system."""
    include_system_ca_certs_pool: bool = False
    """Trust those of the system beside `ca_file`. Only over HTTP."""
    cert_file: str = ""
    """Our own certificate, when the other side wants one (mTLS)."""
    key_file: str = ""
    """The key of `cert_file`."""

    def check(self) -> Iterator[str]:
        """What the types cannot say."""
        if bool(self.cert_file) != bool(self.key_file):
            yield "cert_file and key_file belong together; give both or none"

    def context(self, place: str) -> ssl.SSLContext:
        """
        For the standard library.

        Raises:
            StartFailed: a file cannot be used.
        """
        try:
            made = ssl.create_default_context(cafile=self.ca_file or None)
            if self.ca_file and self.include_system_ca_certs_pool:
                made.load_default_certs()
            if self.cert_file:
                made.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:  # ssl.SSLError is one
            names = ", ".join(filter(None, (self.ca_file, self.cert_file, self.key_file)))
            reason = error.strerror or str(error)
            raise StartFailed(
                f"{place}: cannot use {names}: {reason}; give PEM files that this user can read"
            ) from error
        if self.insecure_skip_verify:
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        return made

    def pem(self, place: str) -> tuple[bytes | None, bytes | None, bytes | None]:
        """
        Authorities, key and certificate, for gRPC.

        Raises:
            StartFailed: a file cannot be read.
        """
        found = []
        for name in (self.ca_file, self.key_file, self.cert_file):
            try:
                found.append(Path(name).read_bytes() if name else None)
            except OSError as error:
                raise StartFailed(
                    f"{place}: cannot read {name}: {error.strerror}; give a PEM file that this "
                    "user can read"
                ) from error
        return found[0], found[1], found[2]


def bad_headers(headers: Mapping[str, Secret]) -> Iterator[str]:
    """Headers that cannot be sent; their values are never shown."""
    for name, value in headers.items():
        if not HEADER.fullmatch(name):
            yield f'headers: "{name}" is no name of a header'
        elif not value.isprintable() or not value.isascii():
            yield f'headers: the value of "{name}" has characters that no header can have'


def meaning(queue: SendingQueue | None) -> str:
    """What an answer means in front of such an exporter, for the banner."""
    if queue is None or not queue.enabled:
        return "answered when the other side has taken it"
    if queue.storage:
        return f"queued in {queue.storage}"
    return "queued in memory: lost with the process"


class Outcome:
    """
    Counts and reports what the other side says beside yes and no.

    Args:
        host: of the exporter.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._quiet_log = QuietLog(host.log)

    def taken(self, batch: Batch, answer: ExportSuccess) -> None:
        """A success; items that were rejected must not be sent again (OTLP 1.11)."""
        if answer.rejected:
            self._host.stats.add(
                "otelier_exporter_rejected_items",
                answer.rejected,
                exporter=self._host.id,
                signal=batch.signal.value,
            )
        if not answer.rejected and not answer.message:
            return
        self._quiet_log.warning(
            "Partial success: %d %s rejected by the other side: %s",
            answer.rejected, batch.signal.value, printable(answer.message) or "no reason given",
        )  # fmt: skip
