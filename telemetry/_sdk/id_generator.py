"""
Ids of spans and traces: the generator that OTEL_PYTHON_ID_GENERATOR names, or our own random one.

The provider gets an `Ids`, whose source a test's capture can exchange while it runs.
"""

import os
from importlib.metadata import entry_points

from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator

from telemetry import _diagnostics
from telemetry._context import ids


class Ids(IdGenerator):
    """
    The id generator of the provider.

    Args:
        source: the generator that is asked.
    """

    def __init__(self, source: IdGenerator) -> None:
        self.source = source

    def generate_span_id(self) -> int:
        """A span id."""
        return self.source.generate_span_id()

    def generate_trace_id(self) -> int:
        """A trace id."""
        return self.source.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """As the source says; older SDKs do not ask."""
        asked = getattr(self.source, "is_trace_id_random", None)
        return bool(asked()) if asked is not None else False


class OwnRandomIds(RandomIdGenerator):
    """Random ids that `random.seed(42)` in the application does not repeat in every run."""

    def generate_span_id(self) -> int:
        """A span id that is not zero."""
        return ids.bits(64) or 1

    def generate_trace_id(self) -> int:
        """A trace id that is not zero."""
        return ids.bits(128) or 1


def chosen() -> IdGenerator:
    """Random ids, unless OTEL_PYTHON_ID_GENERATOR names another generator."""
    name = os.environ.get("OTEL_PYTHON_ID_GENERATOR", "random").strip()
    if name and name != "random":
        try:
            for entry_point in entry_points(group="opentelemetry_id_generator", name=name):
                found: IdGenerator = entry_point.load()()
                return found
        except Exception as error:
            _diagnostics.say("ids", f"OTEL_PYTHON_ID_GENERATOR={name!r} cannot be used: {error}")
            return OwnRandomIds()
        _diagnostics.say(
            "ids", f"OTEL_PYTHON_ID_GENERATOR={name!r} is not installed; ids are random"
        )
    return OwnRandomIds()
