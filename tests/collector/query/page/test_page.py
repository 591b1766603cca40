"""The page in a real browser, over a real collector with SQLite that got its data over OTLP."""

import json
import time

import pytest
from selenium.webdriver.common.keys import Keys

from tests.collector.query.page import shop
from tests.collector.query.page.conftest import stored

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", autouse=True)
def data(sender, page):
    """A failed checkout, and traffic that goes well."""
    shop.checkout(sender)
    shop.traffic(sender)
    stored(page, f"api/v1/trace/{shop.TRACE}")


def failed_row(browser):
    """The text of the selected row of the waterfall."""
    return browser.text(".wf .r.sel")


def test_home_fills_by_itself(browser, sender):
    """Home shows traces, failures and lines without an id, and a new trace comes without a reload (A9)."""
    browser.open()
    browser.shows("POST /checkout", "GatewayTimeout", "charge failed, giving up", "28.9 s")
    assert browser.run("return document.title") == "Home · otelier"
    assert browser.text("#command") == "collector traces --since 1h"
    trace = shop.identity("later", 16).hex()
    sender.spans(
        [{"trace": trace, "service": "late-api", "id": "later", "name": "PUT /late", "kind": "SERVER",
          "start": -10, "ms": 9}]
    )  # fmt: skip
    browser.shows("PUT /late")
    browser.all(f'a[href="#/trace/{trace}"]')[0].click()
    browser.shows("PUT /late took 9.0 ms")


BOX = [
    (shop.TRACE, "trace"),
    (shop.TRACE.upper(), "trace"),
    ("0af76519-16cd-43dd-8448-eb211c80319c", "trace"),
    (f"00-{shop.TRACE}-{shop.identity('infer').hex()}-01", "trace"),
    (shop.identity("infer").hex(), "span"),
    ("corr-9", "correlation"),
    ("req-5d0e11", "request"),
    (shop.TASK_ID, "task"),
    (shop.ORDER_ID, "order"),
    (json.dumps({"level": "ERROR", "trace_id": shop.TRACE, "msg": "no"}), "trace"),
]


@pytest.mark.parametrize(
    ("text", "kind"), BOX, ids=[f"{kind}-{n}" for n, (_, kind) in enumerate(BOX)]
)
def test_one_box_takes_any_id(browser, text, kind):
    """`/` focuses the box, Enter goes to the trace, whatever kind of id was pasted; it is a link (D4)."""
    browser.open("#/errors")
    browser.shows("GatewayTimeout")
    browser.keys("/")
    browser.keys(text, Keys.ENTER)
    browser.shows("billing.charge_card failed after 3 retries: GatewayTimeout")
    assert browser.text("#say") == f"found as {kind}"
    assert browser.place.startswith("#/trace/")
    if "infer" in text or text.startswith("00-") or kind == "span":
        assert "infer credit-risk 7.3" in failed_row(browser)
    browser.open(browser.place)  # the address alone leads to the same
    browser.shows("billing.charge_card failed after 3 retries: GatewayTimeout")


def test_free_text_is_looked_for_in_logs(browser):
    """What is no id becomes a search of the records, with the command that asks the same."""
    browser.open()
    browser.keys("/")
    browser.keys("gateway retry 2 of", Keys.ENTER)
    browser.shows("No record contains this")
    browser.keys("/")
    browser.keys("retry 2 of", Keys.ENTER)
    browser.shows("“retry 2 of”", "retry 2 of 3")
    assert browser.text("#command") == "collector logs --text 'retry 2 of' --since 24h"
    browser.keys(Keys.ARROW_DOWN, Keys.ENTER)
    browser.shows("billing.charge_card failed after 3 retries: GatewayTimeout")


def test_an_unknown_id_says_what_was_searched(browser):
    """A link to an id that is not stored shows the kinds, the range, and a way on."""
    browser.open("#/trace/ord-nope")
    browser.shows("Nothing has this id", "ord-nope", "order id", "Spans are stored from")
    browser.all('main a[href^="#/find/ord-nope"]')[0].click()
    browser.shows("No record contains this")


def test_the_trace_is_opened_at_the_error(browser):
    """Verdict, attempts, queue wait, lines in their span, exception and command of a failed task (D4)."""
    browser.open(f"#/trace/{shop.ORDER_ID}")
    browser.shows("billing.charge_card failed after 3 retries: GatewayTimeout")
    assert browser.run("return document.title").startswith(
        "billing.charge_card failed after 3 retries"
    )
    why = browser.text(".why")
    for part in (
        "acme-pay did not answer within 500 ms", "at shop/billing/charge.py:89 in charge_card",
        "worker on billing@w2, attempt 4 of 4", f"order {shop.ORDER_ID}", f"trace {shop.TRACE}",
    ):  # fmt: skip
        assert part in why
    assert browser.text(".steps").count("ReadTimeout") == 3
    assert "12.0 s in queue" in browser.text(".steps")
    assert "run billing.charge_card" in failed_row(browser)
    assert "attempt 4" in failed_row(browser)
    rows = browser.text(".wf .rows")
    assert "waiting in queue billing" in rows
    assert "charge failed, giving up" in rows
    side = browser.text(".side")
    for part in ("GatewayTimeout: acme-pay", "shop/billing/charge.py:89", "raise GatewayTimeout(provider) from error",
                 "library frame", "enqueued by", "task_id", "service.version"):  # fmt: skip
        assert part in side
    assert browser.text("#command") == f"collector trace {shop.ORDER_ID}"
    assert browser.run("return document.activeElement.getAttribute('role')") == "tree"
    active = browser.run("return document.activeElement.getAttribute('aria-activedescendant')")
    assert "failed, run billing.charge_card" in browser.run(
        "return document.getElementById(arguments[0]).getAttribute('aria-label')", active
    )


def test_the_tabs_of_a_trace(browser):
    """Logs lists every line of the trace by time, Raw the answer itself; the tab is in the address."""
    browser.open(f"#/trace/{shop.TRACE}")
    browser.shows("Timeline")
    browser.all("#tab-logs")[0].click()
    browser.shows(
        "checkout received", "inference slow", "retry 1 of 3", "charge failed", where=".body"
    )
    assert "tab=logs" in browser.place
    browser.all("#tab-raw")[0].click()
    browser.shows(f'"trace_id": "{shop.TRACE}"', where=".raw")
    browser.open(browser.place)
    browser.shows(f'"trace_id": "{shop.TRACE}"', where=".raw")


def test_what_can_be_copied(browser, page):
    """The command, the link, the answer and OTLP/JSON of a trace go to the clipboard."""
    rights = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": page}
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", rights)
    browser.open(f"#/trace/{shop.ORDER_ID}")
    browser.shows("failed after 3 retries")
    copied = {}
    for label in ("CLI command", "Link", "JSON", "OTLP/JSON"):
        [button] = [each for each in browser.all(".acts button") if each.text == label]
        button.click()
        browser.until(lambda button=button: button.text == "copied", f"{label} was not copied")
        copied[label] = browser.driver.execute_async_script(
            "const done = arguments[0]; navigator.clipboard.readText().then(done, (e) => done(String(e)))"
        )
    assert copied["CLI command"] == f"collector trace {shop.ORDER_ID}"
    assert copied["Link"] == browser.driver.current_url
    assert json.loads(copied["JSON"])["traces"][0]["trace_id"] == shop.TRACE
    assert len(json.loads(copied["OTLP/JSON"])["batches"]) == 3


def test_pauses_fold_and_unfold(browser):
    """The 12 s in the queue are folded at first; `s` shows them to scale."""
    width = "return document.querySelector('.wf .wait .bar').getBoundingClientRect().width"
    browser.open(f"#/trace/{shop.TRACE}")
    browser.shows("waiting in queue")
    folded = browser.run(width)
    browser.keys("s")
    browser.until(lambda: browser.run(width) > 2 * folded, "the wait did not grow")
    browser.keys("s")
    browser.until(lambda: abs(browser.run(width) - folded) < 1, "the wait did not fold again")


def test_times_are_local_with_utc_on_hover(browser):
    """A time is in the reader's zone; its title is UTC with nanoseconds."""
    zone = {"timezoneId": "Asia/Kolkata"}
    browser.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", zone)
    try:
        browser.open(f"#/trace/{shop.TRACE}")
        browser.shows("failed after")
        shown, title = browser.run(
            "const t = document.querySelector('.why time'); return [t.innerText, t.title]"
        )
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})
    hours, minutes = map(int, title[11:16].split(":"))
    local = (hours * 60 + minutes + 330) % 1440
    assert title.endswith("Z")
    assert len(title.rpartition(".")[2]) == 10
    assert f"{local // 60:02}:{local % 60:02}:{title[17:19]}" in shown


def test_errors_and_tasks_lead_to_the_trace(browser):
    """The groups of failures and the list of tasks show counts and causes, and open the trace (L8)."""
    for place, words, command in (
        (
            "#/errors",
            ("GatewayTimeout: acme-pay", "worker"),
            "collector errors --since 1h --order recent",
        ),
        (
            "#/tasks",
            ("billing.charge_card", "FAILURE", "GatewayTimeout", "12.0 s"),
            "collector tasks --since 1h",
        ),
        (
            "#/tasks?state=FAILURE&since=6h",
            ("FAILURE",),
            "collector tasks --since 6h --state failure",
        ),
        ("#/traces?show=failed", ("POST /checkout",), "collector traces --since 1h --errors"),
    ):
        browser.open(place)
        browser.shows(*words)
        assert browser.text("#command") == command
        [link] = [each for each in browser.all("main [data-row]") if shop.TRACE in each.get_attribute("href")
                  or shop.TASK_ID in each.get_attribute("href")]  # fmt: skip
        link.send_keys(Keys.ENTER)
        browser.shows("billing.charge_card failed after 3 retries: GatewayTimeout")
    browser.open("#/tasks?state=SUCCESS")
    browser.shows("No success task in the last 1h")


def test_services_and_operations(browser, page):
    """Services with rate, failures and percentiles of operations; a collector without the routes says so."""
    try:
        stored(page, "api/v1/operations", patience_s=0)
    except AssertionError:
        browser.open("#/services")
        browser.shows("Not available on this version of the collector.")
        return
    browser.open("#/services")
    browser.shows("run billing.charge_card", "100.0 %", "610 ms", "risk-api")
    assert browser.text("#command") == "collector operations --since 1h"
    browser.all('a[href*="service=worker"][data-row]')[0].click()
    browser.shows("run billing.charge_card")
    browser.until(lambda: "GET /products" not in browser.text(), "other services did not go")
    browser.open()
    browser.shows("Requests and tasks", "Failed spans", "8 failed")


def test_keyboard_only(browser):
    """From home to the cause, through every view and back to the box without a pointer."""
    browser.open()
    browser.shows("POST /checkout")
    for key, name in zip(
        "resotlh", ("Traces", "Errors", "Services", "Logs", "Tasks", "Live", "Home"), strict=True
    ):
        browser.keys("g", key)
        browser.until(
            lambda name=name: browser.text(".nav [aria-current]") == name,
            f"g {key} does not go to {name}",
        )
    browser.shows("POST /checkout")
    focus = "return document.activeElement.innerText ?? ''"
    for _ in range(60):
        browser.keys("j")
        if "POST /checkout" in browser.run(focus):
            break
    assert "POST /checkout" in browser.run(focus)
    browser.keys(Keys.ENTER)
    browser.shows("billing.charge_card failed")
    assert "attempt 4" in failed_row(browser)
    browser.keys("p")
    assert "attempt 4" not in failed_row(browser)
    browser.keys(Keys.HOME)
    assert "POST /checkout" in failed_row(browser)
    browser.keys(Keys.ARROW_LEFT)
    browser.until(lambda: "+13" in failed_row(browser), "the root did not close")
    browser.keys(Keys.ARROW_RIGHT)
    browser.until(lambda: "+13" not in failed_row(browser), "the root did not open")
    browser.keys("?")
    browser.shows("the box", where="dialog")
    browser.keys(Keys.ESCAPE)
    browser.until(lambda: not browser.all("dialog"), "Escape did not close the keys")
    browser.keys("/")
    assert browser.run("return document.activeElement.getAttribute('aria-label')").startswith(
        "Any id"
    )


def test_hostile_text_is_shown_and_does_nothing(browser, sender, page):
    """HTML, scripts, ANSI, bidi controls and 1 MB of text from outside are bounded text on every view."""
    trace = shop.identity("evil", 16).hex()
    huge = shop.EVIL + "A" * 1_000_000
    evil = {"trace": trace, "service": shop.EVIL[:100], "span": "evil"}
    sender.spans(
        [{"trace": trace, "service": shop.EVIL[:100], "id": "evil", "name": shop.EVIL, "kind": "SERVER", "start": -500,
          "ms": 20, "failed": True, "attributes": {shop.EVIL: shop.EVIL, "huge": huge, "order.id": "evil/../#?<b>"},
          "exception": (shop.EVIL, huge, shop.EVIL)}]
    )  # fmt: skip
    sender.logs(
        [{**evil, "at": -490, "level": "ERROR", "text": huge, "attributes": {"k": shop.EVIL}},
         {**evil, "at": -480, "level": "ERROR", "text": shop.EVIL}]
    )  # fmt: skip
    stored(page, f"api/v1/trace/{trace}")
    for place in ("#/", "#/traces", "#/errors", "#/errors?kind=spans", "#/live", "#/find/onerror", f"#/trace/{trace}",
                  f"#/trace/{trace}?tab=logs", f"#/trace/{trace}?tab=raw", "#/trace/evil%2F..%2F%23%3F%3Cb%3E", "#/services",
                  "#/%3Cimg%20src=x%3E", "#/trace/%E0%A4%A"):  # fmt: skip
        browser.open(place)
        browser.until(
            lambda: not browser.run("return document.querySelector('main').ariaBusy === 'true'"),
            place,
        )
        if place not in ("#/services", "#/%3Cimg%20src=x%3E", "#/trace/%E0%A4%A"):
            browser.shows("onerror")
        state = browser.run(
            "const main = document.body; return [document.title === 'pwned',"
            "main.querySelectorAll('img, iframe, script, object, [onerror], [onclick]').length,"
            "main.textContent.length, /[\\x1b\\u202e]/.test(main.textContent + document.title)]"
        )
        assert state[:2] == [False, 0], place
        assert state[2] < 1_200_000, place
        assert state[3] is False or "tab=raw" in place, place
    browser.open(f"#/trace/{trace}")
    browser.shows("\\u{202e}gnp.exe", "\\x1b[31m", "characters)")


def test_a_trace_of_10000_spans(browser, sender, page):
    """It is opened at its failure; only visible rows are elements; the end is one key away."""
    trace = shop.large(sender)
    deadline = time.monotonic() + 60
    while json.loads(stored(page, f"api/v1/trace/{trace}"))["traces"][0]["span_count"] < 10_000:
        assert time.monotonic() < deadline
    browser.open(f"#/trace/{trace}")
    browser.shows("item 9990 failed")
    assert "item 9990" in failed_row(browser)
    elements = "return document.querySelectorAll('.wf .r').length"
    assert browser.run(elements) < 100
    browser.keys(Keys.HOME)
    assert "batch reprice" in failed_row(browser)
    browser.keys(Keys.END)
    browser.until(lambda: failed_row(browser).startswith("item "), "the last row is not shown")
    slowest = browser.driver.execute_async_script(
        """
        const done = arguments[0];
        const rows = document.querySelector('.wf .rows');
        const paints = [];
        let turn = 0;
        requestAnimationFrame(function next() {
          rows.scrollTop = (turn * 7919 * 22) % rows.scrollHeight;
          const before = performance.now();
          requestAnimationFrame(() => {
            paints.push(performance.now() - before);
            if (++turn < 30) next(); else done([Math.max(...paints), document.querySelectorAll('.wf .r').length]);
          });
        });
        """
    )
    print(f"slowest of 30 jumps in 10,000 spans: {slowest[0]:.1f} ms")
    assert slowest[1] < 100


def test_broken_traces_are_drawn(browser, sender, page):
    """A missing parent, a cycle, a deep chain, an end before the start, a line of a span that is not stored."""
    trace = shop.identity("broken", 16).hex()
    each = {"trace": trace, "service": "odd-api", "ms": 5}
    deep = [{**each, "id": f"deep{n}", "parent": f"deep{n - 1}" if n else "", "name": f"deep {n}", "start": n / 100}
            for n in range(1000)]  # fmt: skip
    sender.spans(
        [*deep,
         {**each, "id": "orphan", "parent": "never", "name": "orphan", "start": 1},
         {**each, "id": "hen", "parent": "egg", "name": "hen", "start": 2},
         {**each, "id": "egg", "parent": "hen", "name": "egg", "start": 3},
         {**each, "id": "back", "name": "backwards", "start": 40, "ms": -30}]
    )  # fmt: skip
    sender.logs(
        [
            {
                "service": "odd-api",
                "at": 5,
                "level": "INFO",
                "text": "line of nobody",
                "trace": trace,
                "span": "gone",
            }
        ]
    )
    stored(page, f"api/v1/trace/{trace}")
    browser.open(f"#/trace/{trace}")
    browser.shows("deep 0")
    missing = shop.identity("never").hex()[:8]
    seen = ""
    for key in (Keys.HOME, Keys.END):
        browser.keys(key)
        time.sleep(0.3)
        seen += browser.text(".wf .rows")
    for words in (f"parent {missing}… is not stored", "hen", "egg", "backwards", "line of nobody"):
        assert words in seen, seen[-3000:]
    assert browser.all('.wf svg[aria-label="clock: ends before it starts"]')


def test_a_trace_that_is_arriving_fills_in(browser, sender, page):
    """Spans that come after the trace was opened appear by themselves; the selected row stays selected."""
    trace = shop.identity("slow", 16).hex()
    each = {"trace": trace, "service": "slow-api", "start": 0}
    sender.now = time.time_ns()
    sender.spans([{**each, "id": "first", "name": "first part", "ms": 5}])
    stored(page, f"api/v1/trace/{trace}")
    browser.open(f"#/trace/{trace}")
    browser.shows("first part took 5.0 ms")
    sender.spans([{**each, "id": "second", "parent": "first", "name": "second part", "ms": 3}])
    browser.shows("second part", where=".wf .rows")
    assert "first part" in failed_row(browser)


def test_live_follows_pauses_and_links(browser, sender):
    """New records come as they are stored, a pause holds them back and counts them, a line opens its trace."""
    browser.open("#/live")
    browser.shows("following", "charge failed, giving up")

    def say(text):
        sender.logs([{"service": "shop-api", "at": 0, "level": "INFO", "text": text}])

    say("first live line")
    browser.shows("first live line")
    browser.keys(" ")
    browser.shows("Go on")
    say("second live line")
    browser.shows("1 new lines wait")
    assert "second live line" not in browser.text()
    browser.keys(" ")
    browser.shows("second live line")
    browser.open("#/live?level=error")
    browser.shows("charge failed, giving up")
    assert "first live line" not in browser.text()
    browser.run("document.querySelector('.tail').focus()")
    browser.keys(Keys.HOME, Keys.ENTER)
    browser.until(lambda: browser.place.startswith("#/trace/"), "Enter did not open the trace")


def test_live_keeps_up_and_counts_what_left(browser, sender):
    """6,500 lines at once: the newest are shown, a bounded number is kept, what left the view is counted."""
    browser.open("#/live")
    browser.shows("following")
    for first in range(0, 6500, 500):
        sender.logs(
            {"service": "flood", "at": n, "level": "INFO", "text": f"flood {n}"}
            for n in range(first, first + 500)
        )
    browser.shows("flood 6499", "older lines left this view; all are stored")
    assert browser.run("return document.querySelectorAll('.tail .r').length") < 100
