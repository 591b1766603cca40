"""
What the nine roles of the fleet do with an order; ordinary code, with one block of telemetry.

A message is JSON: the order, the roles that are still ahead of it, and headers. `process` handles
one and says what to send on. The work is simulated by short sleeps; failures are not: a cache that
misses, an attempt that has to be repeated, an instrument that nobody knows.
"""

import json
import time
from typing import Any

from telemetry.workers import Order, Worker

ROLES = (
    "dispatcher",
    "worker_open",
    "worker_close",
    "worker_pending",
    "worker_cancel",
    "worker_reject",
    "worker_stoploss",
    "worker_takeprofit",
    "orders_calculated",
)
WAYS = {
    "open_close": ("orders_calculated", "worker_open", "worker_close"),
    "stoploss": ("orders_calculated", "worker_open", "worker_stoploss"),
    "takeprofit": ("orders_calculated", "worker_open", "worker_takeprofit"),
    "pending_cancel": ("worker_pending", "worker_cancel"),
    "reject": ("worker_reject",),
}
"""The kind of an order -> the roles that it goes through after the dispatcher."""

PRICES = {"EURUSD": 1.0842, "GBPUSD": 1.2671, "XAUUSD": 2412.5}
BALANCES = {f"user-{number}": 1000.0 * number for number in range(1, 8)}
"""The database of accounts; the cache in Redis knows only some of them."""

Message = dict[str, Any]


def process(worker: Worker, cache: Any, message: Message) -> Message | None:
    """Do the role's part; the message for the next role, or None when the order is done."""
    with worker.order(
        order_id=message["order_id"],
        user_id=message["user_id"],
        symbol=message["symbol"],
        order_type=message["type"],
        headers=message["headers"],
    ) as order:
        WORK[worker.name](order, cache, message)
        if not message["ahead"]:
            return None
        return {**message, "headers": order.inject()}


def dispatch(order: Order, _: Any, message: Message) -> None:
    ways = WAYS.get(message["kind"])
    if ways is None:
        order.count("unroutable_messages")
        order.fail(f"no way for orders of kind {message['kind']}", error_type="unroutable")
        return
    message["ahead"] = list(ways)
    order.add(route=ways)


def calculate(order: Order, cache: Any, message: Message) -> None:
    balance = balance_of(order, cache, message["user_id"])
    with order.timing("margin_calculation", span=True):
        time.sleep(0.001)
        margin = message["lots"] * 100_000 * PRICES[message["symbol"]] / 500
    with order.timing("commission_calculation"):
        commission = 7.0 * message["lots"]
    order.add(margin=round(margin, 2), commission=commission, free=round(balance - margin, 2))


def balance_of(order: Order, cache: Any, user_id: str) -> float:
    """From the cache, else from the database."""
    cached = cache.hget("fleet:balances", user_id)
    if cached is not None:
        return float(cached)
    order.fallback("database")
    return BALANCES[user_id]


def open_order(order: Order, _: Any, message: Message) -> None:
    with order.timing("margin_calculation"):
        price = PRICES[message["symbol"]]
    ask_provider(order, fails_first=message["number"] % 10 == 2)
    order.add(price=price, lots=message["lots"])


def close_order(order: Order, _: Any, message: Message) -> None:
    with order.timing("close_calculation"):
        profit = message["lots"] * 12.5
    if message["number"] % 10 == 5:
        order.retry("finalize")
    ask_provider(order)
    order.add(profit=profit)


def register(order: Order, _: Any, message: Message) -> None:
    with order.timing("provider_registration"):
        ask_provider(order)
    order.add(at=PRICES[message["symbol"]] * 0.99)


def cancel(order: Order, _: Any, message: Message) -> None:  # noqa: ARG001 - as the others
    ask_provider(order)


def reject(order: Order, _: Any, message: Message) -> None:
    with order.timing("margin_release"):
        order.add(reason="insufficient margin", lots=message["lots"])


def trigger(order: Order, _: Any, message: Message) -> None:
    with order.timing("close_calculation"):
        order.add(price=PRICES[message["symbol"]])


def ask_provider(order: Order, *, fails_first: bool = False) -> None:
    """The provider takes some milliseconds, and sometimes two attempts."""
    time.sleep(0.002)
    if fails_first:
        order.retry("provider_timeout", error=TimeoutError("no answer within 2 ms"))
        time.sleep(0.002)


WORK = {
    "dispatcher": dispatch,
    "orders_calculated": calculate,
    "worker_open": open_order,
    "worker_close": close_order,
    "worker_pending": register,
    "worker_cancel": cancel,
    "worker_reject": reject,
    "worker_stoploss": trigger,
    "worker_takeprofit": trigger,
}


def encode(message: Message) -> str:
    return json.dumps(message)


def decode(text: bytes) -> Message:
    message: Message = json.loads(text)
    return message
