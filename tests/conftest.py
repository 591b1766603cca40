"""Fixtures that all tests share. Servers are real: see tests/servers.py."""

import os
import signal
import tempfile
import uuid

import hypothesis
import pymongo
import pytest

from tests import servers

if "XDG_DATA_HOME" not in os.environ:  # no test reads or leaves anything in the user's own folder
    os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="otelier-tests-")

pytest.register_assert_rewrite("tests.contracts")

# How fast a machine makes examples is no property of the code: hundreds of other processes may run beside.
hypothesis.settings.register_profile(
    "otelier", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("otelier")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script: the programs that tests start would ignore Ctrl-C too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter):
    """Print the figures (seeds, counts) that tests recorded, in whatever process they ran."""
    lines = [
        f"{report.nodeid}: {value}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "figures"
    ]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory):
    """A MongoDB for the whole session: MONGODB_URI, else a mongod of our own."""
    if given := os.environ.get("MONGODB_URI"):
        yield given
        return
    if servers.mongod_binary() is None:
        servers.missing("no MONGODB_URI and no mongod (requirements/mongod.txt)")
    with servers.mongod(tmp_path_factory.mktemp("mongodb")) as uri:
        yield uri


@pytest.fixture
def mongodb_database(mongodb_uri):
    """The name of a database of one test; dropped at its end, unless the server goes anyway."""
    name = f"t_{uuid.uuid4().hex}"
    yield name
    if "MONGODB_URI" in os.environ:  # dropping takes a second, most of a test's time
        with pymongo.MongoClient(mongodb_uri) as client:
            client.drop_database(name)


@pytest.fixture
def mongod(tmp_path):
    """A mongod of this test alone (not started), to be killed, frozen and started again."""
    binary = servers.mongod_binary()
    if binary is None:
        servers.missing("no mongod (requirements/mongod.txt)")
    server = servers.Mongod(binary, tmp_path)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    """A Redis for the whole session: REDIS_URL, else a redis-server of our own."""
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    binary = servers.redis_binary()
    if binary is None:
        servers.missing("no REDIS_URL and no redis-server (requirements/test.txt)")
    with servers.redis_server(tmp_path_factory.mktemp("redis"), binary) as url:
        yield url
