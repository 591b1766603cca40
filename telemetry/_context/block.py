"""
What works as `with`, as `async with` and as a decorator: the base of spans, scopes, calls and orders.

A block says how it begins (`__enter__`) and how it ends (`_end`); the other forms follow from these
two, here and nowhere else. The asynchronous form is the same work: nothing in a block waits. A
decorator makes a new block for each call (`_again`), so that calls at the same time do not mix.
"""

import functools
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

from telemetry import _diagnostics

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Block(Generic[T]):
    """Works as `with` and as `async with`; `T` is what the block gets."""

    __slots__ = ()

    def __enter__(self) -> T:
        raise NotImplementedError

    def _end(self, error: BaseException | None) -> None:
        """End the block, with the exception that leaves it; raises nothing."""
        raise NotImplementedError

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        self._end(error)

    async def __aenter__(self) -> T:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        self._end(error)


class Decorator(Block[T]):
    """A block that is also a decorator of functions and coroutine functions."""

    def _again(self) -> "Block[T]":
        """One more block like this, for one call of a decorated function."""
        raise NotImplementedError

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        return decorated(function, self._again)


def decorated(function: Callable[P, R], block: Callable[[], Any]) -> Callable[P, R]:
    """`function` with each call inside a new `block()`; generators are left as they are."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        # What is held over a yield would be seen by the code that runs in between.
        _diagnostics.say("decorated", f"{function!r} is a generator: use `with` inside it instead")
        return function  # type: ignore[return-value]  # mypy narrowed it to a generator function
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            with block():
                return await function(*args, **kwargs)

        return call_async  # type: ignore[return-value]  # R is the coroutine that call_async returns

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with block():
            return function(*args, **kwargs)

    return call
