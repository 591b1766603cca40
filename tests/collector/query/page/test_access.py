"""Everybody can use the page: narrow windows, screen readers, dark and light."""

import importlib.util
from pathlib import Path

import pytest

from tests.collector.query.page import shop
from tests.collector.query.page.conftest import stored

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PLACES = [
    "#/", "#/traces", "#/errors", "#/services", "#/tasks", "#/find/", "#/live", f"#/trace/{shop.TRACE}", "#/trace/nope"
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def data(sender, page):
    """A failed checkout, and traffic that goes well."""
    shop.checkout(sender)
    shop.traffic(sender)
    stored(page, f"api/v1/trace/{shop.TRACE}")


@pytest.fixture(scope="module")
def axe():
    """The script of axe-core."""
    [folder] = importlib.util.find_spec("axe_core_python").submodule_search_locations
    return (Path(folder) / "axe.min.js").read_text()


def settled(browser, place):
    """Open a place and wait until the view is there."""
    browser.open(place)
    browser.until(
        lambda: browser.run(
            "const m = document.querySelector('main'); return m.querySelector('h1') && m.ariaBusy !== 'true'"
        ),
        place,
    )


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("place", PLACES)
def test_axe_finds_nothing_serious(browser, axe, place, scheme):
    """Names, roles, landmarks and contrast of every view, in both schemes, by axe-core."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        settled(browser, place)
        browser.run(axe)
        found = browser.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then((r) => done(r.violations.map((v) =>"
            " [v.impact, v.id, v.nodes[0].html])), (error) => done([['broken', String(error), '']]))"
        )
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert [each for each in found if each[0] not in ("minor", "moderate")] == []


@pytest.mark.parametrize("place", PLACES)
def test_400_pixels_are_enough(browser, place):
    """Every view fits into 400 px without scrolling sideways, and all its controls have names."""
    size = {"width": 400, "height": 860, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        settled(browser, place)
        wide = browser.run(
            "return [document.documentElement.scrollWidth, document.querySelector('main').scrollWidth]"
        )
    finally:
        browser.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {**size, "width": 1440, "height": 900}
        )
    assert wide == [400, 400]
    nameless = browser.run(
        "return [...document.querySelectorAll('a, button, input, select, [role=tree], [role=listbox], svg')]"
        ".filter((e) => !(e.getAttribute('aria-label') || e.innerText?.trim() || e.textContent.trim())).map((e) => e.outerHTML)"
    )
    assert nameless == []
    assert browser.run("return document.querySelectorAll('h1').length") == 1


def test_dark_and_light_by_the_system(browser):
    """The colours follow the system's setting."""
    colour = "return getComputedStyle(document.body).backgroundColor"
    seen = {}
    for scheme in ("dark", "light"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        seen[scheme] = browser.run(colour)
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert seen == {"dark": "rgb(14, 17, 22)", "light": "rgb(255, 255, 255)"}
