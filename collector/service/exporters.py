"""
The ends of pipelines in a change: storages, exporters, the queues around them, and extensions.

What was made from the same goes on. What is new starts beside what it replaces; what cannot, because
both want one file or port, is left for when the old part has let go.
"""

from collections.abc import Iterable
from typing import Any

from collector.config import ComponentConfig
from collector.errors import StartFailed
from collector.model import Answers
from collector.sending_queue.sender import ExporterSettings, QueueSender, durable
from collector.service.parts import EXPORTER, EXTENSION, QUEUE, STORAGE, RunningComponent, named
from collector.service.running import Context
from collector.wal.storage import FileStorage


class Exporters:
    """
    Storages, exporters, queues and extensions.

    Args:
        context: of the change.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._running: dict[tuple[str, str], RunningComponent] = {}
        self._queues: dict[str, RunningComponent] = {}
        self._cursors: list[tuple[FileStorage, str]] = []  # made by this change

    def end(self, name: str) -> RunningComponent | None:
        """What a pipeline hands to for an exporter: its queue, else itself; None until it runs."""
        if self._queue_origin(name) is not None:
            return self._queues.get(name)
        return self._running.get(("exporters", name))

    def _exporters(self) -> Iterable[str]:
        lines = self._context.config.pipelines.values()
        names = dict.fromkeys(name for line in lines for name in line.exporters)
        return [name for name in names if name in self._context.config.exporters]

    def _storages(self) -> list[str]:
        return [name for name in self._context.config.service_extensions if self._is_storage(name)]

    def _is_storage(self, name: str) -> bool:
        """Whether an extension keeps the queues of exporters."""
        cls = self._context.config.extensions[name].cls
        return isinstance(cls, type) and issubclass(cls, FileStorage)

    def _configured(self, kind: str, name: str) -> ComponentConfig:
        """What the configuration says about a component."""
        sections = {"storages": "extensions"}
        found: ComponentConfig = getattr(self._context.config, sections.get(kind, kind))[name]
        return found

    async def start_beside(self) -> list[tuple[str, str]]:
        """Start what is new; what cannot start yet, because an old part may be in the way."""
        wanted = [("storages", name) for name in self._storages()]
        wanted += [("exporters", name) for name in self._exporters()]
        for kind, name in wanted:
            configured = self._configured(kind, name)
            part = self._context.find(kind, configured)
            if part is not None:
                self._running[kind, name] = part
                self._context.keep.add(part)
        waiting = []
        for kind, name in wanted:
            if (kind, name) in self._running:
                continue
            try:
                await self._start(kind, name)
            except StartFailed:
                if not self._context.unused("exporters", "storages"):
                    raise
                waiting.append((kind, name))
        return waiting

    async def start_rest(self, waiting: Iterable[tuple[str, str]]) -> None:
        """Start what had to wait, now that no pipeline uses what is in its way."""
        if waiting:
            await self._context.stop_unused("exporters", "storages")
        for kind, name in waiting:
            await self._start(kind, name)
        self._context.stores = {  # in the order of the configuration, whatever started first
            name: self._running["exporters", name].component
            for name in self._exporters()
            if isinstance(self._running["exporters", name].component, Answers)
        }

    async def _start(self, kind: str, name: str) -> None:
        order = STORAGE if kind == "storages" else EXPORTER
        self._running[kind, name] = await self._context.start(
            kind, self._configured(kind, name), (order,)
        )

    def _queue_origin(self, name: str) -> tuple[Any, ...] | None:
        """What the queue of an exporter is made from; None when it has none."""
        sending = ExporterSettings.of(self._context.config.exporters[name].config)
        if sending == ExporterSettings():
            return None
        storage = sending.queue.storage if sending.queue is not None else ""
        exporter = self._running.get(("exporters", name))
        if not storage:
            return (exporter, sending)
        lines = self._context.config.pipelines.values()
        routes = frozenset(line.id for line in lines if name in line.exporters)
        return (exporter, sending, self._running.get(("storages", storage)), routes)

    def choose_queues(self, waiting: list[tuple[str, str]]) -> None:
        """Find the queues that go on."""
        for name in self._exporters():
            origin = self._queue_origin(name)
            if origin is None or ("exporters", name) in waiting:
                continue
            part = self._context.parts.find("queues", name, origin)
            if part is not None:
                self._queues[name] = part
                self._context.keep.add(part)

    async def stop_queues(self) -> None:
        """Stop those that do not; what they hold is on disk, or is kept for the next one."""
        for part in self._context.unused("queues"):
            queue: QueueSender = part.component
            name = part.name
            again = name in self._context.config.exporters and self._queue_origin(name) is not None
            if again and name in self._exporters():
                self._context.running.left.setdefault(name, [])
                given = queue.give_back()
                await self._context.parts.stop(part)
                self._context.running.left[name] += given
            else:
                await self._context.parts.stop(part)
            if queue.wal is not None:
                await queue.wal.release(name)

    async def start_queues(self) -> None:
        """Start those that are missing."""
        for name in self._exporters():
            origin = self._queue_origin(name)
            if origin is None or name in self._queues:
                continue
            with named(f"exporters::{name}"):
                made = await self._queue(name)
            called = f"exporters::{name} (its queue)"
            part = RunningComponent("queues", name, made, origin, (QUEUE,), called=called)
            self._queues[name] = await self._context.parts.start(part)
            self._context.keep.add(part)
            left = self._context.running.left.get(name, [])
            while left:
                await made.take_over(left[:1])
                del left[:1]

    async def _queue(self, name: str) -> QueueSender:
        """The queue, retry and timeout that an exporter's settings ask for."""
        exporter = self._running["exporters", name].component
        sending = ExporterSettings.of(self._context.config.exporters[name].config)
        storage = sending.queue.storage if sending.queue is not None else ""
        merge = not isinstance(exporter, Answers)
        if not storage:
            return QueueSender(self._context.host(name), exporter, sending, merge=merge)
        found = self._running.get(("storages", storage))
        if found is None:
            raise StartFailed(
                f'sending_queue::storage: "{storage}" is no file_storage that runs; '
                "add it to service::extensions"
            )
        wal: FileStorage = found.component
        if not wal.knows(name):
            self._cursors.append((wal, name))
        lines = [
            line.id for line in self._context.config.pipelines.values() if name in line.exporters
        ]
        return await durable(self._context.host(name), exporter, sending, wal, lines, merge=merge)

    async def forget_cursors(self) -> None:
        """After a failure: a cursor that no exporter will use would keep everything that comes."""
        for wal, name in self._cursors:
            await wal.forget_idle(name)

    async def start_extensions(self) -> None:
        """Start those that are missing, or that have looked at stores that are others now."""
        storages = self._storages()
        names = [name for name in self._context.config.service_extensions if name not in storages]
        for name in names:
            configured = self._configured("extensions", name)
            part = self._context.find("extensions", configured)
            if part is not None and part.stores.holds(self._context.stores):
                self._context.keep.add(part)
        kept = {part.name for part in self._context.keep if part.kind == "extensions"}
        for name in names:
            if name in kept:
                continue
            configured = self._configured("extensions", name)
            try:
                part = await self._context.start("extensions", configured, (EXTENSION,))
            except StartFailed:
                if not self._context.unused("extensions"):
                    raise
                await self._context.stop_unused("extensions")
                part = await self._context.start("extensions", configured, (EXTENSION,))
            self._context.running.extensions[name] = part.component
        for name in self._context.running.extensions.keys() - set(names):
            del self._context.running.extensions[name]
