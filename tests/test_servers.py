"""The servers of the tests themselves: they answer, and they end."""

import socket
from urllib.parse import urlsplit

import pytest

from tests import servers


def answers(address):
    try:
        with socket.create_connection(address, timeout=1.0):
            return True
    except OSError:
        return False


def test_redis_answers(redis_url):
    """The Redis of the session takes commands."""
    parts = urlsplit(redis_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5.0) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(16) in (b"+PONG\r\n", b"-NOAUTH Authentic")


def test_mongod_ends_with_its_context_also_after_a_failure(tmp_path):
    """A test that fails leaves no server behind."""
    if servers.mongod_binary() is None:
        servers.missing("no mongod (requirements/mongod.txt)")
    seen = []

    def failing_test():
        with servers.mongod(tmp_path) as uri:
            seen.append(("127.0.0.1", urlsplit(uri).port))
            assert answers(*seen)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing_test()
    assert not answers(*seen)
