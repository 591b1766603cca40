"""The page of a collector with a token."""

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser import chromium
from tests.collector.query.page import shop
from tests.programs import FREE_PORTS, READY, Collector

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_the_token_is_asked_for_once_and_stays_in_the_tab(tmp_path):
    """No data before the token; a wrong one is asked for again; it is never in an address (B50)."""
    sets = (*FREE_PORTS, "extensions.query.token=s3cret-token")
    with Collector(tmp_path, sets=sets) as collector:
        collector.wait_for(READY)
        shop.checkout(shop.Sender(collector.address("receivers::otlp", "http")))
        with chromium("http://" + collector.address("extensions::query", "http")) as browser:
            browser.open("#/errors")
            browser.shows("answers only with its token", where="dialog")
            assert "GatewayTimeout" not in browser.text("body")
            browser.keys("wrong", Keys.ENTER)
            browser.shows("This token was refused", where="dialog")
            assert "GatewayTimeout" not in browser.text("body")
            browser.keys("s3cret-token", Keys.ENTER)
            browser.shows("GatewayTimeout")
            assert browser.place == "#/errors"
            browser.driver.refresh()
            browser.shows("GatewayTimeout")
            browser.open("#/live")
            browser.shows("charge failed, giving up")
            assert not browser.all("dialog")
            kept = browser.run("return [localStorage.length, document.cookie, location.href]")
            assert kept[:2] == [0, ""]
            assert "s3cret" not in kept[2]
            asked = browser.run(
                "return performance.getEntriesByType('resource').map((e) => e.name)"
            )
            assert not [address for address in asked if "s3cret" in address]
            browser.driver.switch_to.new_window("tab")
            browser.open("#/errors")
            browser.shows("answers only with its token", where="dialog")
            assert browser.complaints() == []
