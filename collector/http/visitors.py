"""
Who may ask a port that answers every user of this machine: no web page of another site.

A page from anywhere can make a browser send requests to localhost, under a name of its own when its
DNS says so (rebinding), and then read the answer. Browsers always send Host, and Origin with what a
page asks for: on loopback the Host must be a name of loopback, and an Origin must be the address
itself, on any endpoint. Programs (Prometheus, probes) send neither wrongly.
"""

from typing import Any, Final

from collector.http.server import is_local

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1", ""})


class NoVisitors:
    """
    An ASGI application behind a check of Host and Origin.

    Args:
        app: what answers.
        endpoint: where it listens.
    """

    def __init__(self, app: Any, endpoint: str) -> None:
        self._app = app
        self._names = LOOPBACK | {host_name(endpoint)} if is_local(endpoint) else None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 421 or 403 to a web page, else let the application answer."""
        if scope["type"] == "http":
            refusal = self._refusal(scope["headers"])
            if refusal is not None:
                status, text = refusal
                body = f"{text}\n".encode()
                headers = [
                    (b"content-type", b"text/plain; charset=utf-8"),
                    (b"content-length", b"%d" % len(body)),
                ]
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Any) -> tuple[int, str] | None:
        hosts = [
            value.decode("latin-1").strip().lower() for name, value in headers if name == b"host"
        ]
        named = hosts[0] if len(hosts) == 1 else ""
        if len(hosts) > 1 or (self._names is not None and host_name(named) not in self._names):
            return 421, "this Host is not served here; ask localhost"
        for name, value in headers:
            if name == b"origin" and value.decode("latin-1").lower() not in (
                f"http://{named}",
                f"https://{named}",
            ):
                return 403, "requests from other origins are not allowed"
        return None


def host_name(endpoint: str) -> str:
    """The host of `host:port`, in lower case."""
    name, colon, _ = endpoint.rpartition(":")
    return (name if colon and not endpoint.endswith("]") else endpoint).strip("[]").lower()
