"""
What is spent on the work that runs here: the place where batches and calls of language models meet.

A batch opens an account for each attempt of an item. A call of a language model that ends inside of it
pays its cost and its tokens into that account, so that neither has to know the other. What the
handler adds itself while a call is open counts as that call's, so that nothing is counted twice.
"""

from collections.abc import Callable
from contextvars import ContextVar
from decimal import Decimal

from telemetry import _diagnostics

Pay = Callable[[Decimal, int, int], None]
"""Takes an amount, tokens read and tokens written; from any thread."""


class Bill:
    """What was added by hand while a call is open."""

    __slots__ = ("amount", "outer", "tokens_in", "tokens_out")

    def __init__(self, outer: "Bill | None") -> None:
        self.outer = outer
        self.amount = Decimal(0)
        self.tokens_in = 0
        self.tokens_out = 0


_account: ContextVar[tuple[Pay, str] | None] = ContextVar("otelier_account", default=None)
_bill: ContextVar[Bill | None] = ContextVar("otelier_bill", default=None)


def open_account(pay: Pay, currency: str) -> None:
    """What is spent from here on goes to `pay`; ends with the context of the running task."""
    _account.set((pay, currency))
    _bill.set(None)


def begin_call() -> Bill:
    """A call begins; give the bill to `end_call`."""
    bill = Bill(_bill.get())
    _bill.set(bill)
    return bill


def added(amount: Decimal, tokens_in: int, tokens_out: int) -> None:
    """The handler has added this itself."""
    bill = _bill.get()
    if bill is not None:
        bill.amount += amount
        bill.tokens_in += tokens_in
        bill.tokens_out += tokens_out


def end_call(
    bill: Bill, amount: Decimal | None, currency: str, tokens_in: int, tokens_out: int
) -> None:
    """
    A call has ended: pay what the handler has not added itself.

    Args:
        bill: as `begin_call` gave it.
        amount: what the call cost, if that is known.
        currency: of the amount; another one than the account's is not paid, with a line on stderr.
        tokens_in: tokens read.
        tokens_out: tokens written.
    """
    if _bill.get() is bill:
        _bill.set(bill.outer)
    account = _account.get()
    if account is None:
        return
    pay, own = account
    cost = amount or Decimal(0)
    if cost and currency != own:
        text = f"a call cost {currency}, and the batch counts {own}: the amount is not counted"
        _diagnostics.say("spending", f"{text}; set Limits(currency=...)", level="error")
        cost = Decimal(0)
    rest = (
        max(cost - bill.amount, Decimal(0)),
        max(tokens_in - bill.tokens_in, 0),
        max(tokens_out - bill.tokens_out, 0),
    )
    if any(rest):
        pay(*rest)
