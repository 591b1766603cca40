"""
The components that run: each with what it was made from, started and stopped one by one.

What a component was made from (class, settings, and the components that it holds on to) decides
whether it goes on when the configuration is read again. The order of the stop is in the parts
themselves, because parts come and go: receivers first, then processors from the head of a pipeline
to its end, extensions, queues, exporters, and the storages of the queues last.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from collector.errors import CollectorError, ConfigError, StartFailed
from collector.pipeline.fan_out import Outlet, describe

LAST_S: Final = 1.0
"""How long a component may take to close once the deadline has passed."""
STORAGE, EXPORTER, QUEUE, EXTENSION, PIPELINE, RECEIVER = range(6)
"""The order in which components start; they stop in the opposite one."""

log = logging.getLogger("collector.service")


class TrackedMapping(Mapping[str, Any]):
    """
    A mapping that knows whether it was looked into.

    Args:
        real: the mapping.
    """

    def __init__(self, real: Mapping[str, Any]) -> None:
        self.real = real
        self.looked = False

    def __getitem__(self, key: str) -> Any:
        self.looked = True
        return self.real[key]

    def __iter__(self) -> Iterator[str]:
        self.looked = True
        return iter(self.real)

    def __len__(self) -> int:
        self.looked = True
        return len(self.real)

    def holds(self, others: Mapping[str, Any]) -> bool:
        """Whether who looked into it would find the same in another mapping."""
        mine, theirs = list(self.real.items()), list(others.items())
        return not self.looked or (
            len(mine) == len(theirs)
            and all(a == c and b is d for (a, b), (c, d) in zip(mine, theirs, strict=True))
        )


@dataclass(slots=True, eq=False)
class RunningComponent:
    """
    One component that runs.

    Args:
        kind: its section of the YAML; for the queue of an exporter, "queues".
        name: its id there.
        component: what was made.
        origin: what it was made from; equal origins need no other component.
        order: when it starts; see the module.
        stores: what it was given to ask.
        called: how messages call it.
        outlet: what pipelines call, when it is not the component itself.
    """

    kind: str
    name: str
    component: Any
    origin: tuple[Any, ...]
    order: tuple[int, ...]
    stores: TrackedMapping = field(default_factory=lambda: TrackedMapping({}))
    called: str = ""
    outlet: Outlet | None = None

    def __str__(self) -> str:
        return self.called or f"{self.kind}::{self.name}"


class Parts:
    """All components that run, and their start and stop."""

    def __init__(self) -> None:
        self.all: list[RunningComponent] = []
        self.late: list[str] = []
        """Components that a deadline cut off, and those that failed to close."""
        self.deadline = float("inf")
        """When, by the loop's clock, closing has taken too long."""

    def __iter__(self) -> Iterator[RunningComponent]:
        return iter(list(self.all))

    def find(self, kind: str, name: str, origin: tuple[Any, ...]) -> RunningComponent | None:
        """A part that runs already and was made from the same."""
        for part in self.all:
            if (part.kind, part.name) == (kind, name) and part.origin == origin:
                return part
        return None

    async def start(self, part: RunningComponent) -> RunningComponent:
        """
        Start a component.

        Raises:
            StartFailed: one line that names the component and the reason.
        """
        if hasattr(part.component, "__aenter__"):
            with named(str(part)):
                await part.component.__aenter__()
        self.all.append(part)
        return part

    async def stop(self, part: RunningComponent) -> None:
        """Stop a component: bounded, and never in the way of the next one."""
        if part not in self.all:
            return
        self.all.remove(part)
        if not hasattr(part.component, "__aexit__"):
            return
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(max(self.deadline, now + LAST_S)):
                await part.component.__aexit__(None, None, None)
        except TimeoutError:
            self.late.append(f"{part} was cut off")
            log.warning("%s did not stop in time and was cut off", part)
        except Exception as error:
            self.late.append(f"{part} failed to stop: {describe(error)}")
            log.exception("%s failed to stop", part)

    async def stop_all(self) -> None:
        """Stop everything, receivers first."""
        while self.all:
            place, last = max(enumerate(self.all), key=lambda each: (each[1].order, each[0]))
            del place
            await self.stop(last)


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """Whatever a component raises at start becomes one line that names the component."""
    try:
        yield
    except ConfigError:
        raise  # says itself where the problem is
    except Exception as error:
        if not isinstance(error, CollectorError):
            log.debug("traceback of the failed start", exc_info=error)
        raise StartFailed(f"cannot start {what}: {describe(error)}") from error
