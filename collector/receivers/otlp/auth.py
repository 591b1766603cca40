"""
Who may send: the credential of a request, and how far a listener may be reached without one.

Both transports ask here, before they read a body. A listener that other machines can reach needs a
token (`auth`) or certificates of clients (`tls: {client_ca_file: }`); without either it does not
start, because every client that reaches it could fill the store. The one way around is a key whose name says
what it does.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from collector.errors import Retryable, StartFailed, Unauthenticated
from collector.http.exposure import unauthenticated_allowed
from collector.http.server import is_local
from collector.model import ExtensionId, Host
from collector.receivers.otlp.sockets import where
from collector.receivers.otlp.tls import Tls

DENIED: Final = "a credential is needed, or it is not the right one"


class Auth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who checks the credential of each request."""

    authenticator: ExtensionId
    """The extension that knows the tokens: a `bearertokenauth`."""


def open_to_all(config: Any) -> bool:
    """Whether every client that reaches a listener beyond this machine could send."""
    tls: Tls | None = config.tls
    return not (
        is_local(where(config.endpoint, config.transport))
        or config.auth is not None
        or (tls is not None and tls.client_ca_file)
    )


def exposed(config: Any) -> list[str]:
    """What is wrong with a listener that other machines can reach, as a text; nothing when all is well."""
    allowed = config.dangerously_allow_unauthenticated or unauthenticated_allowed()
    if allowed or not open_to_all(config):
        return []
    text = (
        f'endpoint "{config.endpoint}" is reachable from other machines, and every client there could send; '
        "set `auth: {authenticator: bearertokenauth}` or `tls: {client_ca_file: }`, or use "
        "localhost; in a container network of your own, start with --allow-unauthenticated "
        "(TELEMETRY_ALLOW_UNAUTHENTICATED=1)"
    )
    return [text]


class Access:
    """
    The credential check of one listener.

    Args:
        auth: the settings; None lets every client in.
        host: knows the extensions.
        place: the path of the settings, for messages.

    Raises:
        StartFailed: the extension does not run, or knows nothing about credentials.
    """

    def __init__(self, auth: Auth | None, host: Host, place: str) -> None:
        self._name = None if auth is None else auth.authenticator
        # Asked at each request: a reload may put another one in its place.
        self._extensions = host.extensions
        if auth is None:
            return
        found = host.extensions.get(auth.authenticator)
        if found is None:
            raise StartFailed(
                f'{place}::auth::authenticator: "{auth.authenticator}" is no extension that runs; '
                "add it to service::extensions"
            )
        if not hasattr(found, "authenticate"):
            raise StartFailed(
                f'{place}::auth::authenticator: "{auth.authenticator}" is no authenticator; '
                "name a bearertokenauth"
            )

    def check(self, headers: Callable[[str], Sequence[bytes]]) -> None:
        """
        Let a request in.

        Args:
            headers: the values of a header by its name in lower case, one for each time it was sent.

        Raises:
            Unauthenticated: it may not come in.
            Retryable: the extension does not run, so there is nothing to check with.
        """
        if self._name is None:
            return
        found = self._extensions.get(self._name)
        if found is None:
            raise Retryable(f'the extension "{self._name}" does not run')
        if not found.authenticate(headers(found.header)):
            raise Unauthenticated(DENIED)
