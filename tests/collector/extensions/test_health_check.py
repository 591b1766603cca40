"""health_check over a real socket, asked with the standard library's client."""

import asyncio
import http.client
import json
import logging
import socket
from datetime import UTC, datetime

import pytest

from collector.errors import ConfigError, Retryable, StartFailed
from collector.extensions.health_check import HealthCheck, ResponseBody, go_duration
from collector.model import Health, Host
from collector.stats import Stats

pytestmark = pytest.mark.anyio

SINCE = 1_700_000_000.0


def check(health=None, **settings):
    log = logging.getLogger("collector.component.health_check")
    host = Host("health_check", Stats(), log, health or Health())
    settings.setdefault("endpoint", "localhost:0")
    return HealthCheck(HealthCheck.Config(**settings), host)


async def ask(running, path="/", method="GET"):
    def blocking():
        connection = http.client.HTTPConnection(running.endpoints["http"], timeout=10)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.getheader("content-type"), response.read()
        finally:
            connection.close()

    return await asyncio.to_thread(blocking)


async def test_states_of_the_collector():
    """503 before it is ready and from the moment it stops; 200 with upSince and uptime between."""
    health = Health()
    async with check(health) as running:
        starting = await ask(running)
        health.state, health.since_unix_s = "ready", SINCE
        ready = await ask(running)
        health.state = "stopping"
        stopping = await ask(running)
    down = {"status": "Server not available", "upSince": "0001-01-01T00:00:00Z", "uptime": ""}
    for status, kind, body in (starting, stopping):
        assert (status, kind, json.loads(body)) == (503, "application/json", down)
    status, kind, body = ready
    answer = json.loads(body)
    assert (status, kind) == (200, "application/json")
    assert set(answer) == {"status", "upSince", "uptime"}
    assert answer["status"] == "Server available"
    assert datetime.fromisoformat(answer["upSince"]) == datetime.fromtimestamp(SINCE, UTC)
    assert answer["uptime"].endswith("s")


async def test_own_bodies_replace_the_json():
    """`response_body` is answered as it is written."""
    health = Health()
    body = ResponseBody(healthy="fine", unhealthy="not yet")
    async with check(health, response_body=body) as running:
        first = await ask(running)
        health.state = "ready"
        second = await ask(running)
    plain = "text/plain; charset=utf-8"
    assert [first, second] == [(503, plain, b"not yet"), (200, plain, b"fine")]


async def test_only_the_path_and_reading_methods_answer():
    """Another path is 404, another method 405; HEAD has no body."""
    health = Health("ready", SINCE)
    async with check(health, path="/live") as running:
        assert [
            (await ask(running, *words))[0]
            for words in (("/live",), ("/",), ("/live", "POST"), ("/live", "HEAD"))
        ] == [200, 404, 405, 200]
        assert (await ask(running, "/live", "HEAD"))[2] == b""


async def test_port_in_use_is_one_clear_line():
    """A taken port stops the start and says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(StartFailed) as caught:
            await check(endpoint=endpoint).__aenter__()
    assert str(caught.value) == (
        f'cannot listen on "{endpoint}": the address is in use; '
        "stop the other process or choose another endpoint"
    )


@pytest.mark.parametrize("endpoint", ["13133", "localhost:", "localhost:http", "localhost:70000"])
async def test_malformed_endpoint_is_one_clear_line(endpoint):
    """An endpoint is host:port and nothing else."""
    with pytest.raises(StartFailed, match="write host:port, like localhost:4318"):
        await check(endpoint=endpoint).__aenter__()


async def test_garbage_does_not_stop_it():
    """Bytes that are no HTTP get an answer or a closed connection; the next probe is served."""
    async with check(Health("ready", SINCE)) as running:
        host, _, port = running.endpoints["http"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"\x16\x03\x01\x00\xff\0\0\0" + b"\xff" * 4096 + b"\r\n\r\n")
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert (await ask(running))[0] == 200


async def test_port_is_free_again_after_the_stop():
    """Leaving closes the socket, so that the collector can be started again at once."""
    async with check() as running:
        endpoint = running.endpoints["http"]
    async with check(Health("ready", SINCE), endpoint=endpoint) as again:
        assert (await ask(again))[0] == 200


def test_uptime_is_written_as_go_does():
    """Scripts that parse the OpenTelemetry Collector's uptime parse ours."""
    assert [go_duration(seconds) for seconds in (0, 1.5, 61, 3600.25, 90061)] == [
        "0s",
        "1.5s",
        "1m1s",
        "1h0m0.25s",
        "25h1m1s",
    ]


def test_path_begins_with_a_slash():
    """A path that could never be asked for is refused."""
    with pytest.raises(ValueError, match="path must start with /"):
        HealthCheck.Config(path="health")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reload_path": "reload"}, "start with /"),
        ({"reload_path": "/", "path": "/"}, "differ from path"),
        ({"reload_path": "/reload", "endpoint": "0.0.0.0:13133"}, "loopback"),
        ({"reload_path": "/reload", "endpoint": "localhost.example.org:13133"}, "loopback"),
    ],
)
def test_a_reload_path_that_others_could_reach_is_refused(settings, words):
    """B80: the order to reload is for loopback only, on a path of its own."""
    with pytest.raises(ValueError, match=words):
        HealthCheck.Config(**settings)


async def test_what_became_of_the_order_is_the_answer():
    """200 with what changed, 422 with every problem, 503 when it cannot be tried now."""
    outcomes = iter([None, ConfigError(["one", "two"]), Retryable("not ready")])

    async def reload():
        error = next(outcomes)
        if error is not None:
            raise error
        return "nothing else runs now"

    log = logging.getLogger("collector.component.health_check")
    host = Host("health_check", Stats(), log, Health(), reload=reload)
    config = HealthCheck.Config(endpoint="localhost:0", reload_path="/reload")
    async with HealthCheck(config, host) as running:
        answers = [await ask(running, "/reload", "POST") for _ in range(3)]
        assert (await ask(running, "/reload"))[0] == 405
    assert [(status, body.decode()) for status, _, body in answers] == [
        (200, "nothing else runs now\n"),
        (422, "one\ntwo\n"),
        (503, "not ready\n"),
    ]
