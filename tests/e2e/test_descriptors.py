"""Few file descriptors: connections are bounded, the health answers, the log stays short (R8, B73)."""

import contextlib
import resource
import socket
import urllib.request

import pytest

from tests.programs import READY, Collector

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("ports", [("http",), ("http", "grpc"), ("own",)])
def test_more_connections_than_descriptors(tmp_path, ports):
    """600 connections against 200 descriptors: no traceback, and the other ports answer."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
        try:
            command = ["--set", "service.telemetry.metrics.level=none"]
            collector = stack.enter_context(limited(tmp_path, command))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        collector.wait_for(READY)
        addresses = {
            "http": collector.address("receivers::otlp", "http"),
            "grpc": collector.address("receivers::otlp", "grpc"),
            "own": collector.address("extensions::query", "http"),
        }
        health = collector.address("extensions::health_check", "http")
        for port in ports:
            host, number = addresses[port].rsplit(":", 1)
            for _ in range(600 // len(ports)):
                with contextlib.suppress(OSError):
                    made = socket.create_connection((host, int(number)), 5)
                    stack.callback(made.close)
        assert urllib.request.urlopen(f"http://{health}/", timeout=60).status == 200
        assert collector.stop() == 0
        assert "Traceback" not in collector.text
        assert collector.text.count("no connection can be accepted") <= 1


def limited(folder, command):
    """A collector that cannot raise its limit."""
    script = folder / "sitecustomize.py"
    script.write_text(
        "import resource\n"
        "soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))\n"
    )
    return Collector(folder, *command, PYTHONPATH=str(folder))
