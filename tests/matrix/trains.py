"""
The OpenTelemetry trains that the ranges in pyproject.toml promise.

A train is what one `pip install` can find: the API and SDK of one release with the instrumentations
of the same day. Two are odd on purpose: a patch release that only a part of the instrumentations
followed, and a mixture as `pip install --pre opentelemetry-instrumentation-x` leaves it behind.
"""

from dataclasses import dataclass

CORE = ("api", "sdk", "exporter-otlp-proto-common", "proto")
CONTRIB = ("instrumentation", "instrumentation-asgi", "instrumentation-celery")
CONTRIB += ("instrumentation-fastapi", "semantic-conventions", "util-http")


@dataclass(frozen=True)
class Train:
    """
    One set of OpenTelemetry packages.

    Args:
        name: what the report calls it.
        pins: requirements beside the wheel's own.
        forced: requirements that are put over them although pip would refuse the combination.
        pre: whether pre-releases are taken where there are some.
    """

    name: str
    pins: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()
    pre: bool = False


def _pinned(core: str, contrib: str) -> tuple[str, ...]:
    return tuple(f"opentelemetry-{name}=={core}" for name in CORE) + tuple(
        f"opentelemetry-{name}=={contrib}" for name in CONTRIB
    )


TRAINS = {
    train.name: train
    for train in (
        Train("1.39", _pinned("1.39.1", "0.60b1")),
        Train("1.41", _pinned("1.41.1", "0.62b1")),
        Train("1.44", _pinned("1.44.0", "0.65b0")),
        Train("1.45.1", _pinned("1.45.1", "0.66b1")),
        Train("newest"),
        Train("pre-release", pre=True),
        Train(
            "mixed",
            forced=(
                "opentelemetry-api==1.45.1",
                "opentelemetry-semantic-conventions==0.66b1",
                "opentelemetry-instrumentation==0.66b1",
                "opentelemetry-instrumentation-asgi==0.66b1",
                "opentelemetry-util-http==0.66b1",
            ),
        ),
    )
}
OLDEST = "1.39"
NEWEST = "newest"
