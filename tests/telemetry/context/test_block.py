"""Block: one base for `with`, `async with` and decorators; already_recorded: one mark for exceptions."""

import asyncio

import pytest

from telemetry._context.block import Block, Decorator
from telemetry._context.recorded import already_recorded


class Named(Decorator[str]):
    """Notes how it begins and ends, and when a decorator makes one."""

    def __init__(self, notes):
        self.notes = notes

    def __enter__(self):
        self.notes.append("begin")
        return "value"

    def _end(self, error):
        self.notes.append(error)

    def _again(self):
        self.notes.append("made")
        return Named(self.notes)


def test_every_form_begins_and_ends_once():
    """`with`, `async with` and both kinds of decorated functions run the same block."""
    notes = []

    async def awaited():
        async with Named(notes) as value:
            return value

    @Named(notes)
    def plain(number):
        return number + 1

    @Named(notes)
    async def coroutine(number):
        return number + 2

    with Named(notes) as value:
        pass
    assert (value, asyncio.run(awaited())) == ("value", "value")
    assert (plain(1), asyncio.run(coroutine(1))) == (2, 3)
    assert notes == ["begin", None] * 2 + ["made", "begin", None] * 2


def test_the_exception_reaches_the_end_of_the_block_and_goes_on():
    """What leaves the block is given to its end and is not swallowed, in each form."""
    notes, error = [], ValueError("no")

    @Named(notes)
    def fails():
        raise error

    async def awaited():
        async with Named(notes):
            raise error

    for call in (fails, lambda: asyncio.run(awaited())):
        with pytest.raises(ValueError, match="no"):
            call()
    assert notes == ["made", "begin", error, "begin", error]


def test_a_block_without_decorator_is_none():
    """Only what can be made anew for each call can decorate."""
    assert not callable(Block())


def test_an_exception_is_recorded_once():
    """The first that asks records it; one without room for a mark is recorded each time."""

    class Closed(Exception):
        __slots__ = ()

        def __setattr__(self, name, value):
            raise AttributeError(name)

    error = KeyError("k")
    assert [already_recorded(error) for _ in range(3)] == [False, True, True]
    assert [already_recorded(Closed()) for _ in range(2)] == [False, False]
