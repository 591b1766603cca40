"""
Processors in front of a consumer: a pipeline is a right fold over a list.

A processor wraps the next consumer, as ASGI middleware wraps an app. What stands at the end of the
fold is in fan_out.py, the places where a running pipeline can be changed are in gate.py.
"""

from collections.abc import Sequence
from typing import Any

from collector.model import Consume, Host


def chain(
    processors: Sequence[tuple[Any, Any, Host]], consume: Consume
) -> tuple[Consume, list[Any]]:
    """
    Put processors in front of a consumer.

    Args:
        processors: class, config and host of each, in the order of the YAML.
        consume: what follows the last one.

    Returns:
        The entry, and the processors from the last to the first: the order to start them in, so
        that whatever hands on a batch finds the next one running.
    """
    made = []
    for cls, config, host in reversed(processors):
        consume = cls(config, host, consume)
        made.append(consume)
    return consume, made
