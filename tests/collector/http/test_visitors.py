"""Ports that answer without a token: a web page of another site gets nothing (R8, B69)."""

import asyncio
import http.client
import logging

import pytest

from collector.config.telemetry import PrometheusReader
from collector.exporters.prometheus.exporter import Prometheus
from collector.extensions.health_check import HealthCheck
from collector.http.visitors import NoVisitors
from collector.model import Health, Host
from collector.self_metrics.own_metrics import OwnMetrics
from collector.stats import Stats

pytestmark = pytest.mark.anyio

HOST = Host("x", Stats(), logging.getLogger("test"), Health())


async def status(address, path, headers):
    def blocking():
        client = http.client.HTTPConnection(address, timeout=30)
        client.putrequest("GET", path, skip_host=True)
        for name, text in headers:
            client.putheader(name, text)
        client.endheaders()
        answer = client.getresponse()
        answer.read()
        client.close()
        return answer.status

    return await asyncio.to_thread(blocking)


CASES = [
    ([("Host", "localhost:{port}")], True),
    ([("Host", "127.0.0.1")], True),
    ([("Host", "[::1]:{port}")], True),
    ([("Host", "LOCALHOST")], True),
    ([("Host", "localhost:{port}"), ("Origin", "http://localhost:{port}")], True),
    ([("Host", "evil.example")], False),
    ([("Host", "localhost.evil.example:{port}")], False),
    ([("Host", "localhost"), ("Host", "evil.example")], False),
    ([("Host", "localhost:{port}"), ("Origin", "https://evil.example")], False),
    ([("Host", "localhost:{port}"), ("Origin", "null")], False),
]


@pytest.mark.parametrize("kind", ["health_check", "own_metrics", "prometheus"])
async def test_host_and_origin(kind):
    """Loopback names are answered; other names and other origins are not."""
    metrics = OwnMetrics(Stats())
    async with (
        HealthCheck(HealthCheck.Config(endpoint="localhost:0"), HOST) as health,
        Prometheus(Prometheus.Config(endpoint="localhost:0"), HOST) as shown,
    ):
        reader = PrometheusReader(host="localhost", port=0)
        await metrics._start(reader, must=True)
        address, path = {
            "health_check": (health.endpoints["http"], "/"),
            "own_metrics": (metrics.endpoints["localhost:0"], "/metrics"),
            "prometheus": (shown.endpoints["http"], "/metrics"),
        }[kind]
        port = address.rpartition(":")[2]
        for headers, welcome in CASES:
            sent = [(name, text.format(port=port)) for name, text in headers]
            assert (await status(address, path, sent) not in (400, 403, 421)) is welcome, headers
        await metrics.close()


async def test_other_machines_may_use_any_name():
    """A port that is open to the network has names that we do not know; origins are still checked."""
    found = []

    async def app(scope, receive, send):
        found.append(scope)

    async def send(message):
        found.append(message["type"])

    guarded = NoVisitors(app, "0.0.0.0:13133")
    scope = {"type": "http", "headers": [(b"host", b"pod-7:13133")]}
    await guarded(scope, None, send)
    page = {"type": "http", "headers": [(b"host", b"pod-7:13133"), (b"origin", b"http://evil")]}
    await guarded(page, None, send)
    assert found == [scope, "http.response.start", "http.response.body"]
