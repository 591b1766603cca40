"""The page while its collector is away."""

import pytest

from tests.browser import chromium
from tests.collector.query.page import shop
from tests.programs import FREE_PORTS, READY, Collector

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.mark.parametrize("place", ["#/errors", f"#/trace/{shop.TRACE}", "#/"])
def test_it_says_so_and_goes_on_by_itself(tmp_path, place):
    """A collector that is gone is said with what happens next; the view fills when it is back."""
    with Collector(tmp_path) as collector:
        collector.wait_for(READY)
        address = collector.address("extensions::query", "http")
        with chromium(f"http://{address}") as browser:
            browser.open("#/live")
            browser.shows("following")
            assert collector.stop() == 0
            browser.shows("trying again in")
            browser.run("location.hash = arguments[0]", place)
            browser.shows("the collector does not answer; is it running?")
            sets = (*FREE_PORTS, f"extensions.query.endpoint={address}")
            with Collector(tmp_path, sets=sets) as again:
                again.wait_for(READY)
                shop.checkout(shop.Sender(again.address("receivers::otlp", "http")))
                browser.shows("GatewayTimeout")
