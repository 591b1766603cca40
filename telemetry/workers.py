"""
Workers of an order fleet: one block per order records everything about its processing.

    worker = Worker("worker_open", group="provider")
    with worker.order(order_id="ORDER-1", symbol="EURUSD", headers=message.headers) as order:
        with order.timing("margin_calculation"):
            ...

What comes of a block: one span (role, outcome, timings), one audit record of the order's life
cycle (`order.opened`, numbered per worker without gaps), one histogram point, and, when it fails,
one ERROR record with the exception and its stack. Statistics follow every 100 orders or 300 s,
whichever comes first, and at the end of the process; metrics are made of the same integers.

The audit record is also the line of the order in the log file of its role, so that the normal path
pays for one record and not for two. Nothing here raises into the worker or does I/O; the worker's
own exception goes through untouched. A forked child counts from zero under an instance of its own.
"""

from collections.abc import Mapping
from typing import Any, Literal

from telemetry import _diagnostics
from telemetry._context import scope
from telemetry._workers import propagation
from telemetry._workers.order import Order
from telemetry._workers.worker import WorkerState

__all__ = ["Order", "Worker"]


class Worker:
    """
    One role of the fleet; make one when the module is loaded, and use it from any thread or task.

    Example:
        worker = Worker("worker_open", group="provider")

    Args:
        name: the role; the nine known ones have their own counters and audit events: dispatcher,
            worker_open, worker_close, worker_pending, worker_cancel, worker_reject,
            worker_stoploss, worker_takeprofit, orders_calculated.
        group: the family of the role; errors are marked for the shared file `<group>_errors`.
        action: what the role does, as a label; the known roles have one.
        counters: names of counters besides those of the known role.
        every_orders: write statistics after so many orders.
        every_s: write statistics after so many seconds, also when nothing happened.
        continue_as: how a trace that comes in `headers` goes on: as "child" (one trace for the
            order's whole way) or "link" (a trace per message that points at the sender's).
    """

    def __init__(
        self,
        name: str,
        *,
        group: str = "",
        action: str | None = None,
        counters: tuple[str, ...] = (),
        every_orders: int = 100,
        every_s: float = 300.0,
        continue_as: Literal["child", "link"] = "child",
    ) -> None:
        self._state = WorkerState(
            name,
            group=group,
            action=action,
            counters=counters,
            every_orders=every_orders,
            every_s=every_s,
            link=continue_as == "link",
        )

    def __repr__(self) -> str:
        return f"<Worker {self._state.name}>"

    @property
    def name(self) -> str:
        """The role."""
        return self._state.name

    def order(
        self,
        order_id: object = None,
        *,
        user_id: object = None,
        symbol: object = None,
        order_type: object = None,
        correlation_id: object = None,
        headers: Mapping[Any, Any] | None = None,
        **fields: object,
    ) -> Order:
        """
        A block that processes one order; works as `with` and as `async with`.

        Args:
            order_id: taken from the headers when it is not given.
            user_id: whose order it is.
            symbol: the instrument.
            order_type: market, limit, ...; for cancellations sl, tp or pending.
            correlation_id: taken from the headers or the scope when not given, else made.
            headers: of the message, as `inject()` of the sender made them; text or bytes.
            fields: of the span and the records; ids by the keywords of `log_context`.
        """
        ids = {"order_id": order_id, "user_id": user_id, "correlation_id": correlation_id}
        if fields:
            for key in fields.keys() & scope.ATTRIBUTE.keys():
                ids[key] = fields.pop(key)
        return Order(
            self._state,
            ids=ids,
            symbol=symbol,
            order_type=order_type,
            headers=headers,
            fields=fields,
        )

    def inject(self, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        """
        Headers for a message to the next role: trace, correlation id, order id, time of sending.

        Args:
            headers: what the message has already; ours win, so that a re-sent message is new.
        """
        return propagation.inject(headers)

    def retry(self, reason: object, *, error: BaseException | None = None) -> None:
        """Count a repeated attempt outside of any order, such as a lost connection to the queue."""
        self._state.note("retry", reason, error)

    def fallback(self, target: object, *, error: BaseException | None = None) -> None:
        """Count a fallback outside of any order."""
        self._state.note("fallback", target, error)

    def pool_error(self, error: BaseException | None = None, *, pool: object = "redis") -> None:
        """Count a connection pool error outside of any order."""
        self._state.note("pool_error", pool, error)

    def statistics(self) -> dict[str, Any]:
        """The numbers of this worker in this process, as the next `worker.statistics` shows them."""
        try:
            return self._state.report(self._state.here())
        except Exception as error:
            _diagnostics.fault("statistics", error)
            return {}

    def close(self) -> None:
        """
        Write the last statistics; the exit of the process does it for workers that are not closed.

        Orders may still come: they begin a new window, which the exit writes.
        """
        self._state.close()
