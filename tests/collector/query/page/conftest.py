"""One collector with a shop's data and one browser, shared by the tests of a module."""

import time
import urllib.request

import pytest

from tests.browser import chromium
from tests.collector.query.page import shop
from tests.programs import READY, Collector


@pytest.fixture(scope="module")
def collector(tmp_path_factory):
    """A real collector with a SQLite store, without data."""
    with Collector(tmp_path_factory.mktemp("page")) as running:
        running.wait_for(READY)
        yield running


@pytest.fixture(scope="module")
def page(collector):
    """The address of the page."""
    return "http://" + collector.address("extensions::query", "http")


@pytest.fixture(scope="module")
def sender(collector):
    """Sends to the collector over OTLP."""
    return shop.Sender(collector.address("receivers::otlp", "http"))


@pytest.fixture(scope="module")
def window(page):
    """A browser window."""
    with chromium(page) as opened:
        yield opened


@pytest.fixture
def browser(window):
    """The window, and at the end nothing that the page complained about."""
    window.complaints()
    yield window
    assert window.complaints() == []


def stored(page, path, patience_s=60):
    """Wait until a question is answered with 200; it is asked at least once."""
    until = time.monotonic() + patience_s
    while True:
        try:
            with urllib.request.urlopen(f"{page}/{path}", timeout=30) as answer:
                return answer.read()
        except OSError:
            if time.monotonic() >= until:
                break
            time.sleep(0.1)
    raise AssertionError(f"{path} was never answered")
