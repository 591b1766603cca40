"""
From what runs to what a configuration says: the start, and each time it is read again.

What is the same goes on: a component with the same id and settings keeps its sockets, files and
memory. The rest is exchanged while requests come in, and none is lost or refused for it:

1. New storages and exporters start beside the old ones. Whatever cannot (one path, one lock) waits.
2. Receivers that are gone stop and answer what they hold, by the old pipelines.
3. Pipelines that change are held: requests wait in front of them, those inside go on to their end,
   then processors flush and stop. From the head to the end, so nothing waits for itself.
4. Queues and, if something waits for that, old exporters and storages stop; the new ones start.
5. Extensions, processors and gates are put in place; requests go on.
6. What is no longer used stops. Receivers whose own settings changed are exchanged last.

A step that fails raises and leaves things as they are then. The caller makes the old
configuration true again in the same way: most of it still runs. At the first start there is
nothing old, and the same steps are the start order.
"""

from collections.abc import Iterable

from collector.config import Config
from collector.errors import StartFailed
from collector.service.exporters import Exporters
from collector.service.parts import RECEIVER
from collector.service.pipelines import Pipelines
from collector.service.running import Context
from collector.service.running import Running as Running


class Reload:
    """
    Makes one configuration true.

    Args:
        running: what runs; changed.
        config: what shall run.
    """

    def __init__(self, running: Running, config: Config) -> None:
        self._config = config
        self._context = Context(running, config)
        self._sinks = Exporters(self._context)
        self._pipelines = Pipelines(self._context, self._sinks)

    async def make(self) -> tuple[list[str], list[str]]:
        """
        Do it.

        Returns:
            What was started and what was stopped.

        Raises:
            StartFailed: a component cannot start; what is half done stays so.
        """
        parts = self._context.parts
        before = set(parts)
        try:
            await self._make()
        except BaseException:
            await self._sinks.forget_cursors()
            raise
        after = set(parts)
        return (
            [str(part) for part in parts if part not in before],
            sorted(str(part) for part in before - after),
        )

    async def _make(self) -> None:
        context, sinks, pipelines = self._context, self._sinks, self._pipelines
        lines = self._config.pipelines.values()
        receivers = dict.fromkeys(name for line in lines for name in line.receivers)
        waiting = await sinks.start_beside()
        for part in context.parts:
            if part.kind == "receivers" and part.name not in receivers:
                await context.parts.stop(part)
        sinks.choose_queues(waiting)
        pipelines.choose_connectors()
        pipelines.lead_feeds()
        await pipelines.clear()
        await sinks.stop_queues()
        await sinks.start_rest(waiting)
        await sinks.start_queues()
        await sinks.start_extensions()
        await pipelines.fill()
        await context.stop_unused("extensions", "processors", "connectors", "exporters", "storages")
        await self._start_receivers(receivers)

    async def _start_receivers(self, names: Iterable[str]) -> None:
        """Exchange receivers: the new one beside the old one, or behind it on the same port."""
        context = self._context
        wanted = [self._config.receivers[name] for name in names if name in self._config.receivers]
        found = [part for configured in wanted if (part := context.find("receivers", configured))]
        context.keep.update(found)
        kept = {part.name for part in found}
        for configured in wanted:
            if configured.id in kept:
                continue
            feed = context.running.feeds["receivers", configured.id]
            try:
                await context.start("receivers", configured, (RECEIVER,), feed)
            except StartFailed:
                if not context.unused("receivers"):
                    raise
                await context.stop_unused("receivers")
                await context.start("receivers", configured, (RECEIVER,), feed)
        await context.stop_unused("receivers")
