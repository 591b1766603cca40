"""
The files of the page: an ASGI layer in front of the query port.

A browser that asks for `/` gets the page, everybody else what the port answers: `curl` and scripts
keep the text index. The files are the same for everyone and hold no data, so they come without the
token; everything that the page shows it asks of the JSON routes behind, with the token in a header.

The policy lets the page load its own scripts and styles and talk to its own port, and nothing else:
no inline script or style, no other host, no frame. `require-trusted-types-for` makes the browser
throw where a script would turn text into markup. Files are read once at the start; an ETag over
the bytes lets a browser keep them until the next version of the package.
"""

from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

FOLDER: Final = Path(__file__).parent / "static"
BELOW: Final = "/page/"
"""Where the files are; `/` is the first of them."""

TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Content type by the end of a name; a file of another kind is not served."""

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Vary": "Accept",
}


class File(msgspec.Struct, frozen=True):
    """One file: its bytes, what they are, and their mark."""

    body: bytes
    media_type: str
    etag: str


def read(folder: Path = FOLDER) -> dict[str, File]:
    """
    Every file of the page, by its path below the folder.

    Args:
        folder: where they are.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in TYPES:
            body = path.read_bytes()
            mark = blake2b(body, digest_size=12).hexdigest()
            name = path.relative_to(folder).as_posix()
            found[name] = File(body, TYPES[path.suffix], f'"{mark}"')
    return found


class Page:
    """
    ASGI middleware: the files of the page; everything else is for `app`.

    Args:
        app: the query port.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._files = read()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a file, or pass the request on."""
        found = self._wanted(scope) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        marks = Headers(scope=scope).get("if-none-match", "")
        headers = {**HEADERS, "ETag": found.etag}
        if found.etag in [mark.strip().removeprefix("W/") for mark in marks.split(",")]:
            await Response(status_code=304, headers=headers)(scope, receive, send)
            return
        response = Response(found.body, headers=headers, media_type=found.media_type)
        await response(scope, receive, send)

    def _wanted(self, scope: Scope) -> File | None:
        path: str = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            return None
        if path == "/" and "text/html" in Headers(scope=scope).get("accept", "").lower():
            return self._files["index.html"]
        return self._files.get(path.removeprefix(BELOW)) if path.startswith(BELOW) else None
