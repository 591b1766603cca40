"""
health_check: one address that says whether the collector takes data.

200 while everything runs; 503 before that and from the first moment of the stop, so that a load
balancer sends the next batch elsewhere while receivers still answer what they hold. It reads the
shared `Health` and asks no component: a probe must answer while a disk hangs.

With `reload_path` a POST to that path reads the configuration again and answers what became of it.
It is off unless asked for, and then for loopback only: the Host must be a loopback name and an
Origin, which every browser sends, is rejected, so that no web page can give the order.
"""

import json
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Final, Self

import msgspec

from collector.errors import CollectorError, Retryable
from collector.http.server import serving
from collector.http.visitors import NoVisitors, host_name
from collector.model import Host

PLAIN: Final = b"text/plain; charset=utf-8"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
NEVER: Final = "0001-01-01T00:00:00Z"
"""What the OpenTelemetry Collector answers as `upSince` while it is not up."""


class ResponseBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Texts that replace the JSON body."""

    healthy: str = ""
    """Answered with 200; empty means the JSON body."""
    unhealthy: str = ""
    """Answered with 503; empty means the JSON body."""


class HealthCheck:
    """Serves the state of the collector over HTTP."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the health endpoint."""

        endpoint: str = "localhost:13133"
        """Address to listen on. Loopback unless you say otherwise."""
        path: str = "/"
        """The path that answers; others are 404."""
        response_body: ResponseBody | None = None
        """Own texts instead of `{"status": ..., "upSince": ..., "uptime": ...}`."""
        reload_path: str = ""
        """A POST to this path reads the configuration again, like SIGHUP: 200 with what changed, 422
        with every problem. Empty: there is no such path. Loopback endpoints only."""
        check_collector_pipeline: dict[str, Any] | None = None
        """Accepted and ignored, as in the OpenTelemetry Collector."""

        def __post_init__(self) -> None:
            """Check what the types cannot say."""
            if not self.path.startswith("/"):
                raise ValueError("path must start with /")
            if not self.reload_path:
                return
            if not self.reload_path.startswith("/") or self.reload_path == self.path:
                raise ValueError("reload_path must start with / and differ from path")
            if host_name(self.endpoint) not in LOOPBACK:
                raise ValueError(
                    f'reload_path needs a loopback endpoint, and "{self.endpoint}" is none: '
                    "every client that reaches the port could give the order"
                )

    def __init__(self, config: Config, host: Host) -> None:
        self.config = config
        self.health = host.health
        self.reload = host.reload
        self.endpoints: dict[str, str] = {}
        self._body = config.response_body or ResponseBody()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start to answer."""
        self.endpoints["http"] = await self._stack.enter_async_context(
            serving(NoVisitors(self, self.config.endpoint), self.config.endpoint)
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop to answer."""
        await self._stack.aclose()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002 - ASGI's signature
        """Answer one request; the body that a client may send is not read."""
        if scope["type"] != "http":
            return
        allowed = b"GET, HEAD"
        if self.config.reload_path and scope["path"] == self.config.reload_path:
            allowed = b"POST"
            status, text = await self._order(scope["method"], dict(scope["headers"]))
            kind, body = PLAIN, f"{text}\n".encode()
        else:
            status, kind, body = self._answer(scope["method"], scope["path"])
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        if status == 405:
            headers.append((b"allow", allowed))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        shown = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": shown})

    async def _order(self, method: str, headers: dict[bytes, bytes]) -> tuple[int, str]:
        """Read the configuration again, unless a web page asks for it."""
        if host_name(headers.get(b"host", b"").decode("latin-1")) not in LOOPBACK:
            return 421, "this Host is not served here; use localhost"
        if b"origin" in headers:
            return 403, "web pages cannot give this order"
        if method != "POST":
            return 405, "use POST"
        if self.reload is None:
            return 503, "this collector cannot read its configuration again"
        try:
            return 200, await self.reload()
        except Retryable as error:
            return 503, str(error)
        except CollectorError as error:
            return 422, str(error)

    def _answer(self, method: str, path: str) -> tuple[int, bytes, bytes]:
        if path != self.config.path:
            return 404, PLAIN, b"not found\n"
        if method not in ("GET", "HEAD"):
            return 405, PLAIN, b"use GET\n"
        ready = self.health.state == "ready"
        status = 200 if ready else 503
        text = self._body.healthy if ready else self._body.unhealthy
        if text:
            return status, PLAIN, text.encode()
        problems = [text for texts in self.health.problems.values() for text in texts]
        since = datetime.fromtimestamp(self.health.since_unix_s, UTC).isoformat()
        word = "available" if ready and not problems else "degraded" if ready else "not available"
        answer = {
            "status": f"Server {word}",
            **({"problems": problems} if problems else {}),
            "upSince": since.replace("+00:00", "Z") if ready else NEVER,
            "uptime": go_duration(time.time() - self.health.since_unix_s) if ready else "",
        }
        return status, b"application/json", json.dumps(answer).encode()


def go_duration(seconds: float) -> str:
    """Seconds as Go writes them: `1h2m3.5s`."""
    minutes, rest = divmod(max(seconds, 0.0), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:.6f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
