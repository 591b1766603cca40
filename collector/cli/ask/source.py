"""
Where an answer comes from: a running collector, or a store that is opened to be read.

In this order: the store that `--store` names; the collector that listens at `--endpoint`; and when
nothing listens there, the store that the configuration names, so that a stopped collector can still
be asked. All of them give the bytes that the HTTP port would send: a store is asked through the
same functions and the same encoder, and the printing side sees no difference.

The HTTP client is small on purpose: no proxy, no redirect, a bounded answer, the token from the
environment and never from the command line.
"""

import asyncio
import functools
import http.client
import logging
import os
import socket
import time
import urllib.parse
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import click
import msgspec

from collector.cli import builtin
from collector.cli.ask import streaming
from collector.cli.options import DEFAULT, config_options, load_config
from collector.cli.render import clip
from collector.components import resolve
from collector.config import Config
from collector.http.loopback import connect
from collector.model import Answers, Host, Secret
from collector.query import paged, tail
from collector.query.tail import Lines
from collector.query.trace import trace
from collector.stats import Stats
from collector.stores.base import Store, dumps

DEFAULT_ENDPOINT: Final = "http://localhost:4319"
MAX_BODY: Final = 256 * 1024 * 1024
TIMEOUT_S: Final = 60.0
LABELS_BY_KIND: Final = "categorize-labels"
"""What the Loki API is asked for: labels of the stream, of the record and parsed ones apart."""

Pairs = Sequence[tuple[str, str]]
T = TypeVar("T")


class Source(Protocol):
    """Something that answers, in the JSON of the query port."""

    async def trace(self, text: str) -> bytes:
        """The answer to one id; it may say that nothing was found."""

    async def ask(self, what: str, pairs: Pairs) -> bytes:
        """One page of a question of `PAGED`; the pairs are those of GET /api/v1/..."""

    async def loki(self, path: str, pairs: Pairs) -> bytes:
        """The answer of GET /loki/api/v1/..., `query_range` or `query`, labels by kind."""

    def tail(self, pairs: Pairs) -> AsyncGenerator[Lines, None]:
        """New log records, for ever; the pairs are those of GET /api/v1/tail."""


class NobodyListensError(click.ClickException):
    """There is no collector at the endpoint."""


class Running:
    """
    A collector, over HTTP.

    Args:
        endpoint: `http://host:port`, or `host:port`.
        token: what the `query` extension asks for, if it does.
    """

    def __init__(self, endpoint: str, token: str = "") -> None:
        if "@" in endpoint:
            text = "no user or password belongs here: set COLLECTOR_QUERY_TOKEN, and write http://host:port"
            raise click.BadParameter(text, param_hint="--endpoint")
        url = urllib.parse.urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        try:
            port = url.port
        except ValueError:
            port = -1
        if url.scheme not in ("http", "https") or not url.hostname or port == -1:
            raise click.BadParameter(
                f'"{endpoint}": write http://host:port', param_hint="--endpoint"
            )
        self._https = url.scheme == "https"
        self._host, self._port = url.hostname, port
        self._base = url.path.rstrip("/")
        self._token = token
        self._name = urllib.parse.urlunsplit((url.scheme, url.netloc, "", "", ""))

    async def trace(self, text: str) -> bytes:
        """GET /api/v1/trace/{id}."""
        return self._get(f"/api/v1/trace/{urllib.parse.quote(text, safe='')}")

    async def ask(self, what: str, pairs: Pairs) -> bytes:
        """GET /api/v1/..."""
        return self._get(f"/api/v1/{what}?{urllib.parse.urlencode(pairs)}")

    async def loki(self, path: str, pairs: Pairs) -> bytes:
        """GET /loki/api/v1/..."""
        return self._get(f"/loki/api/v1/{path}?{urllib.parse.urlencode(pairs)}")

    def tail(self, pairs: Pairs) -> AsyncGenerator[Lines, None]:
        """GET /api/v1/tail, again and again from the last position, should the connection end."""

        def opened(cursor: str) -> streaming.Opened:
            some = [pair for pair in pairs if not cursor or pair[0] not in ("cursor", "lines")]
            asked = urllib.parse.urlencode([*some, ("cursor", cursor)] if cursor else some)
            connection = self._connection(streaming.SILENCE_S)
            try:
                sock, response = self._sent(connection, f"/api/v1/tail?{asked}")
                if response.status != 200:
                    refusal = self._refusal(response.status, response.read(MAX_BODY))
                    busy = response.status in (429, 503)
                    raise click.ClickException(refusal) if busy else streaming.RefusedError(refusal)
            except BaseException:
                connection.close()
                raise
            return sock, connection, response

        return streaming.lines(opened, self._name)

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=timeout_s)

    def _sent(
        self, connection: http.client.HTTPConnection, target: str
    ) -> tuple[socket.socket, http.client.HTTPResponse]:
        headers = {"Accept": "application/json", "X-Loki-Response-Encoding-Flags": LABELS_BY_KIND}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            connect(connection)
            sock = connection.sock
            connection.request("GET", self._base + target, headers=headers)
            return sock, connection.getresponse()
        except ConnectionRefusedError:
            raise NobodyListensError(
                f"no collector answers at {self._name}; start one with `collector`, or name a "
                "store with --store"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> click.ClickException:
        reason = clip(str(error) or type(error).__name__)
        return click.ClickException(f"asking {self._name} failed: {reason}")

    def _get(self, target: str) -> bytes:
        connection = self._connection(TIMEOUT_S)
        try:
            with self._sent(connection, target)[1] as response:
                body = response.read(MAX_BODY + 1)
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(error) from error
        finally:
            connection.close()
        if len(body) > MAX_BODY:
            raise click.ClickException(f"the answer is larger than {MAX_BODY} bytes; ask for less")
        if response.status == 200 or (response.status == 404 and b'"searched"' in body):
            return body
        raise click.ClickException(self._refusal(response.status, body))

    def _refusal(self, status: int, body: bytes) -> str:
        if status in (400, 422) and not body.startswith(b"{"):
            return clip(body.decode(errors="replace"))  # a sentence about the query
        try:
            refusal = msgspec.json.decode(body, type=_Refusal)
        except msgspec.DecodeError:
            return f"{self._name} is no query port of a collector (status {status})"
        if status == 401:
            return f"{self._name} asks for a token: set COLLECTOR_QUERY_TOKEN"
        where = f"{refusal.parameter}: " if refusal.parameter else ""
        return clip(f"{self._name}: {where}{refusal.error}")


class _Refusal(msgspec.Struct):
    error: str
    parameter: str = ""


class Opened:
    """
    A store that is open to be read.

    Args:
        store: entered, read-only.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def trace(self, text: str) -> bytes:
        """As GET /api/v1/trace/{id}."""
        return dumps(await trace(self._store, text))

    async def ask(self, what: str, pairs: Pairs) -> bytes:
        """As GET /api/v1/..."""
        return await paged.ask(self._store, what, pairs, now_unix_nano=time.time_ns())

    async def loki(self, path: str, pairs: Pairs) -> bytes:
        """As GET /loki/api/v1/..."""
        from collector.query.logql.evaluation.budget import Budget  # noqa: PLC0415 - verbs without
        from collector.query.logql.evaluation.store_source import (  # noqa: PLC0415 - LogQL need
            StoreSource,
        )
        from collector.query.loki import queries  # noqa: PLC0415 - not pay for it

        given, now = dict(pairs), time.time_ns()
        if path == "query_range":
            work = queries.query_range(given, now, categorized=True)
        else:
            work = queries.query(given, now)
        source = StoreSource(self._store, asyncio.get_running_loop())
        # Not the loop's own pool: the store needs that one.
        with ThreadPoolExecutor(1) as threads:
            return await asyncio.get_running_loop().run_in_executor(threads, work, source, Budget())

    def tail(self, pairs: Pairs) -> AsyncGenerator[Lines, None]:
        """As GET /api/v1/tail."""
        return tail.tail(self._store, tail.question(pairs, now_unix_nano=time.time_ns()))


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the command line says about where to ask.

    Args:
        store: a URL; nothing else is tried.
        endpoint: of the query port. Given explicitly, it is asked and nothing else.
        config: configurations; their query port is asked, then their store is read.
        sets: `a.b=c` on top of them.
        token: for the query port.
    """

    store: str | None = None
    endpoint: str | None = None
    config: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    token: str = ""

    async def ask(self, question: Callable[[Source], Awaitable[T]]) -> T:
        """The answer of the first source that is there."""
        if self.store:
            async with named_store(self.store) as store:
                return await question(Opened(store))
        loaded = load_config(self.config, self.sets) if self.config else None
        endpoint, token = self.endpoint, self.token
        if loaded is not None and not endpoint:
            endpoint, configured = _query_port(loaded)
            token = token or configured
        elif not endpoint:
            endpoint = DEFAULT_ENDPOINT
        if endpoint:
            try:
                return await question(Running(endpoint, token))
            except NobodyListensError:
                if self.endpoint or not (loaded or _default_exists()):
                    raise
        builtin_one = "the built-in configuration"
        name = builtin_one if builtin.applies(self.config) else ", ".join(self.config) or DEFAULT
        why = f"No collector answers at {endpoint}" if endpoint else f"{name} has no query port"
        click.echo(f"{why}: reading the store of {name}.", err=True)
        async with _configured_store(loaded or load_config(self.config, self.sets)) as store:
            return await question(Opened(store))


def _default_exists() -> bool:
    return Path(DEFAULT).is_file() or builtin.has_data()


def _query_port(config: Config) -> tuple[str | None, str]:
    """Where the collector of a configuration answers, and its token; None when it does not."""
    for name in config.service_extensions:
        part = config.extensions[name]
        if part.type == "query":
            settings: Any = part.config
            host, _, port = settings.endpoint.rpartition(":")
            host = "localhost" if host in ("", "0.0.0.0", "[::]") else host
            return (f"http://{host}:{port}" if port != "0" else None), settings.token
    return None, ""


def open_store(
    url: str | None,
    config: Sequence[str],
    sets: Sequence[str],
    *,
    read_only: bool,
    kind: type | None = None,
) -> Store:
    """
    The store of `--store`, else that of the configuration; to be entered.

    Args:
        url: of `--store`.
        config: configurations.
        sets: `a.b=c` on top of them.
        read_only: as the store's own.
        kind: the class that it must be of; then an exporter in no pipeline is taken, too.
    """
    if url:
        found = named_store(url, read_only=read_only)
        if kind is not None and not isinstance(found, kind):
            raise click.BadParameter("write mongodb://host/database", param_hint="--store")
        return found
    loaded = load_config(config, sets)
    if kind is None:
        return _configured_store(loaded, read_only=read_only)
    for part in loaded.exporters.values():
        if part.cls is kind:
            store: Store = part.cls(part.config, _host(part.id), read_only=read_only, tend=False)
            return store
    raise click.ClickException(
        "the configuration has no such store; add one, or name it with --store"
    )


def _configured_store(config: Config, *, read_only: bool = True) -> Store:
    """The store that the collector of a configuration would ask."""
    used = dict.fromkeys(name for line in config.pipelines.values() for name in line.exporters)
    stores = {name: config.exporters[name] for name in used if name in config.exporters}
    stores = {name: part for name, part in stores.items() if isinstance(part.cls, Answers)}
    asked = [config.extensions[name] for name in config.service_extensions]
    wanted = [getattr(part.config, "store", None) for part in asked if part.type == "query"]
    for name in (*wanted, *stores):
        if name in stores:
            part = stores[name]
            store: Store = part.cls(part.config, _host(part.id), read_only=read_only, tend=False)
            return store
    raise click.ClickException(
        "the configuration has no store in a pipeline; add sqlite or mongodb, or name one with --store"
    )


def named_store(
    url: str,
    *,
    read_only: bool = True,
    hint: str = "--store",
    settings: Mapping[str, Any] | None = None,
) -> Store:
    """
    The store of a URL; to be entered.

    Args:
        url: `sqlite:///path` or `mongodb://host/database`.
        read_only: as the store's own.
        hint: the option that it was given to.
        settings: further keys of its configuration.
    """
    scheme, _, rest = url.partition("://")
    keys: dict[str, Any] = dict(settings or {})
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        kind = "sqlite"
        keys["path"] = rest[1:]
    elif scheme in ("mongodb", "mongodb+srv") and rest:
        kind = "mongodb"
        keys["uri"] = Secret(url)
        if database := urllib.parse.urlsplit(url).path.strip("/"):
            keys["database"] = database
    else:
        raise click.BadParameter(
            "write sqlite:///relative/path, sqlite:////absolute/path or mongodb://host/database",
            param_hint=hint,
        )
    cls = resolve("exporters", kind)
    try:
        config = cls.Config(**keys)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=hint) from None
    store: Store = cls(config, _host(kind), read_only=read_only, tend=False)
    return store


def _host(name: str) -> Host:
    return Host(name, Stats(), logging.getLogger(f"collector.component.{name.replace('.', '_')}"))


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the options that say where to ask; it receives them as `asking`."""

    @functools.wraps(command)
    def asked(
        *,
        store: str | None,
        endpoint: str | None,
        config: tuple[str, ...],
        sets: tuple[str, ...],
        **others: Any,
    ) -> Any:
        token = os.environ.get("COLLECTOR_QUERY_TOKEN", "")
        asking = Asking(store=store, endpoint=endpoint, config=config, sets=sets, token=token)
        return command(asking=asking, **others)

    options = (
        click.option(
            "--endpoint",
            envvar="COLLECTOR_QUERY_ENDPOINT",
            metavar="URL",
            help=f"The query port of a running collector, {DEFAULT_ENDPOINT} unless given.",
        ),
        click.option(
            "--store",
            envvar="COLLECTOR_STORE",
            metavar="URL",
            help="Read this store instead: sqlite:///path (sqlite:////path when absolute) or mongodb://...",
        ),
    )
    asked = config_options(asked)
    for option in reversed(options):
        asked = option(asked)
    return asked
