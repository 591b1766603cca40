"""
Debian's Chromium, driven over WebDriver, for tests of the page.

Without a chromium and a chromedriver on the machine a test skips with the command that installs them; with
REQUIRE_SERVICES=1 it fails.
"""

import contextlib
import shutil

from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.servers import missing

PATIENCE_S = 30
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # in a container Chromium has no namespaces for its own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--lang=en",
)


class Browser:
    """A browser window: what tests of the page do with it."""

    def __init__(self, driver, page):
        self.driver = driver
        self.page = page

    def open(self, place="#/"):
        """Load the page anew at a place."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.page}/{place}")

    def until(self, condition, what):
        """Wait for a truthy value and give it back."""
        return WebDriverWait(self.driver, PATIENCE_S, 0.1).until(lambda _: condition(), what)

    def run(self, script, *arguments):
        """What a script in the page returns."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector="main"):
        """The visible text of an element; empty when there is none."""
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def shows(self, *words, where="main"):
        """Wait until all the words are visible."""
        try:
            self.until(lambda: all(word in self.text(where) for word in words), f"{words}")
        except TimeoutException:
            raise AssertionError(
                f"{where} never showed {words}:\n{self.text(where)[:3000]}"
            ) from None

    def keys(self, *keys):
        """Type into whatever has the focus."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def all(self, selector):
        """The elements that match."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    @property
    def place(self):
        """The fragment of the address."""
        return self.run("return location.hash")

    def complaints(self):
        """What the console has as errors, but for requests that were answered with a status."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE"
            and "the server responded with a status" not in entry["message"]
        ]


@contextlib.contextmanager
def chromium(page, *, width=1440, height=900, flags=()):
    """
    A new browser with an empty profile.

    Args:
        page: the address of the query port, without a slash at the end.
        width: of the window, in CSS pixels.
        height: the same.
        flags: more of the command line.
    """
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        missing("no chromium with chromedriver: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = binary
    for flag in (*FLAGS, f"--window-size={width},{height}", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        started.set_script_timeout(PATIENCE_S)
        # A headless window is never narrower than 500 px: the viewport itself is set.
        started.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        yield Browser(started, page)
    finally:
        started.quit()
