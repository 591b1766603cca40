"""
TLS of a listener, for both transports: the OpenTelemetry Collector's keys, and one pair of files.

HTTP gets an `ssl.SSLContext`, gRPC credentials of its own; both read the same bytes here. With
`reload_interval` the files are looked at again when a client connects and the interval has passed:
no timer and no thread, and a certificate that was renewed is used without a restart. Files that
cannot be used then are reported, and the ones in use stay.

TLS below 1.2 is never spoken. A private key that every user of the machine can read ends the start.
"""

import contextlib
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, Self

import grpc
import msgspec

from collector.errors import StartFailed
from collector.model import Duration, Secret

VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Encryption of a listener."""

    cert_file: str = ""
    """The certificate, with the chain behind it, as PEM."""
    cert_pem: str = ""
    """The same as text."""
    key_file: str = ""
    """The private key of the certificate, as PEM; not readable by others on the machine."""
    key_pem: Secret = Secret("")
    """The same as text."""
    client_ca_file: str = ""
    """Certificates, as PEM, one of which must have signed the client's (mTLS). Empty: clients need
    no certificate."""
    client_ca_file_reload: bool = False
    """Whether `client_ca_file` is read again, too, when it changes."""
    reload_interval: Duration = Duration(0)
    """Certificate and key are read again after so long, when a client connects; 0 = never."""
    min_version: Literal["1.2", "1.3"] = "1.2"
    """The lowest version of TLS that is spoken; gRPC always takes 1.2."""
    ca_file: str = ""
    """Has no effect on a server, as in the OpenTelemetry Collector; mTLS is `client_ca_file`."""

    def check(self) -> list[str]:
        """What is wrong with these settings, one text each."""
        problems = []
        for name in ("cert", "key"):
            given = bool(getattr(self, f"{name}_file")) + bool(getattr(self, f"{name}_pem"))
            if given != 1:
                problems.append(f"provide either {name}_file or {name}_pem")
        if self.reload_interval < 0:
            problems.append("reload_interval must not be negative")
        return problems


class Files(msgspec.Struct, frozen=True):
    """
    What the files hold.

    Args:
        certificate, key: as PEM.
        clients: the certificates of those who sign clients, as PEM; empty without mTLS.
    """

    certificate: bytes
    key: bytes
    clients: bytes


class Identity:
    """
    The certificate of a listener, as it is now.

    Args:
        config: the settings.
        place: the path of the settings, for messages.
        warn: called with a line when files that have changed cannot be used.
    """

    def __init__(self, config: Tls, place: str, warn: Callable[[str], None]) -> None:
        self.config = config
        self.place = place
        self.warn = warn
        self._looked_at = time.monotonic()
        self._seen = self._marks()
        self.files = self._read()
        self.context = self._context(self.files)

    def server_context(self) -> ssl.SSLContext:
        """A context for asyncio; each connection has the certificate of its moment."""
        return _Current(self)

    def credentials(self) -> Any:
        """Credentials for gRPC; each connection has the certificate of its moment."""
        if not self.config.reload_interval:
            return grpc.ssl_server_credentials(
                [(self.files.key, self.files.certificate)],
                self.files.clients or None,
                bool(self.files.clients),
            )
        given = self.files

        def changed() -> Any:
            nonlocal given
            self.refresh()
            if self.files is given:
                return None
            given = self.files
            return _configuration(given)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(given), changed, bool(given.clients)
        )

    def refresh(self) -> None:
        """Read the files again when they have changed and it is time."""
        interval = self.config.reload_interval
        now = time.monotonic()
        if not interval or now - self._looked_at < interval:
            return
        self._looked_at = now
        try:
            marks = self._marks()
            if marks == self._seen:
                return
            files = self._read()
            self.context = self._context(files)
        except (StartFailed, OSError) as error:
            self.warn(f"the new certificate is not used, the old one stays: {error}")
            return
        self.files = files
        self._seen = marks

    def _marks(self) -> list[tuple[int, int, int]]:
        """Differs when a file has changed."""
        paths = [self.config.cert_file, self.config.key_file]
        if self.config.client_ca_file_reload:
            paths.append(self.config.client_ca_file)
        try:
            found = [Path(path).stat() for path in paths if path]
        except OSError:
            return []
        return [(one.st_mtime_ns, one.st_size, one.st_ino) for one in found]

    def _read(self) -> Files:
        config = self.config
        if config.key_file:
            self._check_key(Path(config.key_file))
        clients = self._bytes("client_ca_file") if config.client_ca_file else b""
        if config.client_ca_file and hasattr(self, "files") and not config.client_ca_file_reload:
            clients = self.files.clients
        return Files(
            certificate=config.cert_pem.encode() or self._bytes("cert_file"),
            key=config.key_pem.encode() or self._bytes("key_file"),
            clients=clients,
        )

    def _bytes(self, name: str) -> bytes:
        path = getattr(self.config, name)
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise StartFailed(
                f"{self.place}::{name}: cannot read {path}: {error.strerror}"
            ) from None

    def _check_key(self, path: Path) -> None:
        """Reject a private key that other users can read or change."""
        with contextlib.suppress(OSError):  # reading it says more
            if path.stat().st_mode & 0o007:
                raise StartFailed(
                    f"{self.place}::key_file: every user of this machine may use {path}; "
                    "chmod o= it (in Kubernetes: defaultMode: 0440)"
                )

    def _context(self, files: Files) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = VERSIONS[self.config.min_version]
        try:
            with contextlib.ExitStack() as stack:
                # OpenSSL reads files only.
                certificate = self.config.cert_file
                certificate = certificate or stack.enter_context(_file(files.certificate))
                key = self.config.key_file or stack.enter_context(_file(files.key))
                made.load_cert_chain(certificate, key, password=_no_password)
            if files.clients:
                made.load_verify_locations(cadata=files.clients.decode("latin-1"))
                made.verify_mode = ssl.CERT_REQUIRED
        except (ssl.SSLError, ValueError) as error:
            raise StartFailed(
                f"{self.place}: certificate, key and client_ca_file must be PEM and belong "
                f"together: {error}"
            ) from None
        return made


class _Current(ssl.SSLContext):
    """A context that hands each connection to the one of the moment."""

    identity: Identity

    def __new__(cls, identity: Identity) -> Self:
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made.identity = identity
        return made

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """What asyncio calls for a new connection."""
        self.identity.refresh()
        return self.identity.context.wrap_bio(*args, **options)


def _configuration(files: Files) -> Any:
    pairs = [(files.key, files.certificate)]
    return grpc.ssl_server_certificate_configuration(pairs, files.clients or None)


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[str]:
    """A file of this user's alone that holds these bytes for a moment."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.name


def _no_password() -> str:
    raise ValueError("the private key has a password; decrypt it, for example with openssl pkey")
