"""Small writes share a bulk: who waits for whom, and what each is told (R4, D4)."""

import asyncio

import pytest

from collector.errors import Permanent, Retryable
from collector.model import Signal
from collector.stores.base import Refused, Written
from collector.stores.mongodb.coalesce import ENOUGH, MAX_WAITING, MOST, RUNNING, Coalescer

pytestmark = pytest.mark.anyio


def some(name, count=1):
    return [{"_id": f"{name}{number}"} for number in range(count)]


class Server:
    """Takes writes when it is told to; keeps what each was."""

    def __init__(self):
        self.writes = []
        self.go = asyncio.Event()
        self.fails = lambda documents: None
        self.running = self.most = 0

    async def __call__(self, signal, documents):
        self.writes.append((signal, [each["_id"] for each in documents]))
        self.running += 1
        self.most = max(self.most, self.running)
        await self.go.wait()
        self.running -= 1
        error = self.fails(documents)
        if error is not None:
            raise error
        return Written(len(documents))


async def begun(joining, *calls):
    """The calls as tasks that have run as far as they can."""
    tasks = [asyncio.create_task(joining(*call)) for call in calls]
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_while_writes_run_goes_together():
    server = Server()
    joining = Coalescer(server, "slow")
    tasks = await begun(joining, *((Signal.LOGS, some(name)) for name in "abcdefg"))
    await asyncio.sleep(0)
    first = [(Signal.LOGS, [f"{name}0"]) for name in "abcd"[:RUNNING]]
    assert server.writes == first
    server.go.set()
    written = await asyncio.gather(*tasks)
    assert server.writes == [*first, (Signal.LOGS, ["e0", "f0", "g0"])]
    assert written == [*[Written(1)] * 4, Written(3), Written(0), Written(0)]
    assert server.most == RUNNING


async def test_signals_do_not_wait_for_each_other():
    server = Server()
    joining = Coalescer(server, "slow")
    calls = [(signal, some(f"{number}-")) for signal in Signal for number in range(9)]
    tasks = await begun(joining, *calls)
    await asyncio.sleep(0)
    assert server.running == RUNNING * len(Signal)
    server.go.set()
    await asyncio.gather(*tasks)
    assert {signal for signal, ids in server.writes if len(ids) == 5} == set(Signal)


async def test_no_more_than_a_bulk_goes_together_and_large_requests_go_alone():
    server = Server()
    joining = Coalescer(server, "slow")
    large = (Signal.LOGS, some("large", ENOUGH))
    tasks = await begun(joining, *[(Signal.LOGS, some(f"{n}-", 300)) for n in range(9)], large)
    await asyncio.sleep(0)
    assert [len(ids) for _, ids in server.writes] == [ENOUGH, *[300] * RUNNING]
    server.go.set()
    await asyncio.gather(*tasks)
    assert sorted(len(ids) for _, ids in server.writes) == [*[300] * 4, ENOUGH, 600, 900]
    assert max(len(ids) for _, ids in server.writes) <= MOST


async def test_all_of_a_group_are_told_to_come_again():
    server = Server()
    server.fails = lambda documents: Retryable("away")
    joining = Coalescer(server, "slow")
    tasks = await begun(joining, *((Signal.LOGS, some(name)) for name in "abcdef"))
    server.go.set()
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(each) for each in told] == ["away"] * 6
    assert len(server.writes) == RUNNING + 1


async def test_what_one_does_is_not_the_others_fault():
    """An error that is for good is told to whoever caused it; the others are stored."""
    server = Server()
    server.fails = lambda documents: Permanent("f") if {"_id": "f0"} in documents else None
    joining = Coalescer(server, "slow")
    tasks = await begun(joining, *((Signal.LOGS, some(name)) for name in "abcdefg"))
    server.go.set()
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(each) if isinstance(each, Permanent) else each for each in told] == [
        *[Written(1)] * 5,
        "f",
        Written(1),
    ]


async def test_refusals_and_duplicates_are_told_once():
    """The store counts what it is told: for a group that is one answer."""
    answer = Written(1, 1, (Refused({"_id": "x"}, "too_large"),))

    async def write(signal, documents):
        await asyncio.sleep(0)
        return answer if len(documents) == 3 else Written(len(documents))

    tasks = await begun(
        Coalescer(write, "slow"), *((Signal.LOGS, some(name)) for name in "abcdefg")
    )
    written = await asyncio.gather(*tasks)
    assert [each for each in written if each.refused or each.duplicates] == [answer]


async def test_who_gives_up_takes_nobody_along():
    server = Server()
    joining = Coalescer(server, "slow")
    tasks = await begun(joining, *((Signal.LOGS, some(name)) for name in "abcdefg"))
    await asyncio.sleep(0)
    tasks[0].cancel()  # its write runs
    tasks[5].cancel()  # it waits
    await asyncio.sleep(0)
    server.go.set()
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in told] == [
        *(True, False, False, False, False, True, False),
    ]
    assert server.writes[-1] == (Signal.LOGS, ["e0", "g0"])
    await joining.stop()
    assert joining._documents == 0


async def test_waiting_is_bounded():
    server = Server()
    joining = Coalescer(server, "slow")
    tasks = await begun(joining, *((Signal.LOGS, some(f"{n}-", 499)) for n in range(105)))
    with pytest.raises(Retryable, match=r"documents wait: slow"):
        await joining(Signal.LOGS, some("one too many", 499))
    assert joining._documents <= MAX_WAITING
    server.go.set()
    told = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [each for each in told if isinstance(each, Retryable)]
    assert len(refused) == 1
    assert sum(each.stored for each in told if each not in refused) == 104 * 499
    await joining.stop()
