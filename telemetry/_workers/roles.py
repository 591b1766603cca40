"""
The roles of an order fleet: what each does, how its audit event is named, and what it counts.

A table and not nine classes, because the roles differ in words only. A name that is not in it is a
role of the application's own, with the words of `OTHER` and whatever counters it declares.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from telemetry import attributes as names


def _none() -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """
    What is particular about a role.

    Args:
        action: the value of `order.action`.
        event: the audit event of an order that went well.
        done: the counter of those orders.
        steps: a timed step -> the counter of its successful ends.
        types: an order type -> the counter of orders of that type.
        retries: the reason of a retry -> its counter.
        counters: what the role counts itself, by `order.count(...)`.
    """

    action: str
    event: str
    done: str
    steps: Mapping[str, str] = field(default_factory=_none)
    types: Mapping[str, str] = field(default_factory=_none)
    retries: Mapping[str, str] = field(default_factory=_none)
    counters: tuple[str, ...] = ()

    @property
    def declared(self) -> tuple[str, ...]:
        """All counters of the role; they are shown even while they are zero."""
        tables = (*self.steps.values(), *self.types.values(), *self.retries.values())
        return tuple(dict.fromkeys((self.done, *tables, *self.counters)))


_MARGIN: Final = {"margin_calculation": "margin_calculations"}
_COMMISSION: Final = {"commission_calculation": "commission_calculations"}

ROLES: Final[dict[str, Role]] = {
    "dispatcher": Role(
        action="dispatch",
        event=names.ORDER_DISPATCHED,
        done="orders_dispatched",
        counters=("unroutable_messages",),
    ),
    "worker_open": Role(
        action="open",
        event=names.ORDER_OPENED,
        done="orders_opened",
        steps={**_MARGIN, **_COMMISSION},
    ),
    "worker_close": Role(
        action="close",
        event=names.ORDER_CLOSED,
        done="orders_closed",
        steps={"close_calculation": "close_calculations"},
        retries={"finalize": "finalize_retries"},
    ),
    "worker_pending": Role(
        action="pending",
        event=names.ORDER_PENDING,
        done="orders_pending",
        steps={"provider_registration": "provider_registrations"},
        types={"modify": "orders_modified"},
    ),
    "worker_cancel": Role(
        action="cancel",
        event=names.ORDER_CANCELLED,
        done="orders_cancelled",
        types={"sl": "sl_cancels", "tp": "tp_cancels", "pending": "pending_cancels"},
    ),
    "worker_reject": Role(
        action="reject",
        event=names.ORDER_REJECTED,
        done="orders_rejected",
        steps={"margin_release": "margin_releases"},
    ),
    "worker_stoploss": Role(
        action="stoploss",
        event=names.ORDER_STOPPED,
        done="stoploss_triggers",
        steps={"close_calculation": "close_calculations"},
    ),
    "worker_takeprofit": Role(
        action="takeprofit",
        event=names.ORDER_PROFIT_TAKEN,
        done="takeprofit_triggers",
        steps={"close_calculation": "close_calculations"},
    ),
    "orders_calculated": Role(
        action="calculate",
        event=names.ORDER_CALCULATED,
        done="orders_calculated",
        steps={**_MARGIN, **_COMMISSION},
    ),
}
"""The nine roles."""

OTHER: Final = Role(action="process", event=names.ORDER_PROCESSED, done="orders_processed")
"""A role of the application's own."""
