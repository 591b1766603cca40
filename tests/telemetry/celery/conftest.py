"""Workers and the publisher that tests share; each is started once, when a test asks for it."""

import pytest

from tests.telemetry.celery import harness


@pytest.fixture(scope="session")
def sink():
    sink = harness.Sink()
    yield sink
    sink.close()


@pytest.fixture(scope="session")
def publish(sink, redis_url, tmp_path_factory):
    """`publish(queue, code)` in a process of its own under the wrapper."""
    publisher = harness.Publisher(sink.url, redis_url, tmp_path_factory.mktemp("publisher"))
    yield publisher
    harness.close([publisher])


@pytest.fixture
def worker(sink, redis_url, tmp_path):
    """Start workers for one test; they are stopped at its end, all at once."""
    started = []

    def start(*arguments, endpoint=None, **options):
        one = harness.Worker(endpoint or sink.url, redis_url, tmp_path, *arguments, **options)
        started.append(one)
        return one

    yield start
    harness.close(started)


@pytest.fixture(scope="session")
def workers(sink, redis_url, tmp_path_factory):
    """Start workers for the whole session."""
    started = []

    def start(name, *arguments, **options):
        folder = tmp_path_factory.mktemp(name)
        one = harness.Worker(sink.url, redis_url, folder, *arguments, **options)
        started.append(one)
        return one.ready()

    yield start
    harness.close(started)


@pytest.fixture(scope="session")
def prefork(workers):
    """The worker that most tests use: prefork, two children, nothing but the wrapper."""
    return workers("prefork", "--concurrency=2", "--hostname=main@test")


@pytest.fixture(scope="session")
def threads(workers):
    """A pool of threads, nothing but the wrapper."""
    return workers("threads", "--pool=threads", "--concurrency=4")


@pytest.fixture(scope="session")
def coded(workers):
    """The solo pool without the wrapper, in link mode, with resources: all by one call in code."""
    return workers("coded", "--pool=solo", wrapped=False, app="coded")
