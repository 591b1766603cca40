"""
Keys that are right and written, and change nothing: said once, at the start and by `validate`.

A key that is not there cannot mislead; one that stands in the file and is not heeded does, because
its writer relies on it. What a section does is decided where it is used; this is the list of what
another key takes the effect from.
"""

from collections.abc import Iterator
from typing import Any, Final

from collector.config.checks import Facts
from collector.config.nodes import Node
from collector.config.problems import located

IN_MEMORY: Final = {
    "sizer": "the budget of the storage is the limit",
    "block_on_overflow": "a full storage refuses requests for now",
}
"""Keys of `sending_queue` that a queue on disk does not heed, and what it does instead."""


def without_effect(facts: Facts) -> Iterator[str]:
    """One text for each key that is written and has no effect."""
    for section, component, path, node in facts.decoded:
        queue: Any = getattr(component.config, "sending_queue", None)
        storage = getattr(queue, "storage", None)
        if section != "exporters" or storage is None:
            continue  # it has no queue, or one of its own kind
        wanted = written(node, "retry_on_failure", "enabled")
        if wanted is not None and wanted.value is False:
            why = "a sending_queue tries again until retry_on_failure::max_elapsed_time is over"
            yield warning(wanted, path, ("retry_on_failure", "enabled"), why)
        for key, why in IN_MEMORY.items():
            child = written(node, "sending_queue", key)
            if storage and child is not None:
                yield warning(child, path, ("sending_queue", key), why)
        child = written(node, "sending_queue", "start")
        if not storage and child is not None:
            yield warning(
                child, path, ("sending_queue", "start"), "it is for a queue with `storage`"
            )


def written(node: Node, *keys: str) -> Node | None:
    """The node of a key inside, None when it is not written."""
    for key in keys:
        if not isinstance(node.value, dict) or key not in node.value:
            return None
        node = node.value[key]
    return None if node.value is None else node


def warning(node: Node, path: str, keys: tuple[str, ...], why: str) -> str:
    """The warning for one key."""
    return located(f"{path}.{'.'.join(keys)} has no effect: {why}", node.mark, "")
