"""
What only the whole configuration can show: references, pipelines, the components' own rules.

The texts are the OpenTelemetry Collector's and begin with the `::` path of what they are about.
Everything is checked and everything is reported; the Collector stops at the first dangling name.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from collector.config.decode import Reference
from collector.config.model import ComponentConfig, Config
from collector.config.nodes import Mark, Node, spot
from collector.config.problems import Problems, located, nearest, quote
from collector.model import Checks, Connects, signals_of

_WORDS: Final = {
    "receivers": "receiver",
    "processors": "processor",
    "exporters": "exporter",
    "extensions": "extension",
}


@dataclass(slots=True, frozen=True)
class Use:
    """
    One name in a list of `service`.

    Args:
        inside: the path of the list.
        part: "receivers", "processors", "exporters" or "extensions".
        id: what is named.
        mark: the line.
        path: the path of this item.
    """

    inside: str
    part: str
    id: str
    mark: Mark
    path: str


@dataclass(slots=True)
class Facts:
    """
    What the loading saw, with its places.

    Args:
        configured: section -> id -> line, including those that did not decode.
        unreadable: sections that are no map, so that nothing is known about their ids.
        decoded: section, component, path and node.
        references: who names whom, by a field.
        pipelines: id -> line and path.
        pipelines_written: how many keys stand below `pipelines`.
        profiles: pipelines of the signal that we do not carry.
        uses: each name in `service`.
    """

    configured: dict[str, dict[str, Mark]] = field(
        default_factory=lambda: {
            section: {}
            for section in ("receivers", "processors", "exporters", "connectors", "extensions")
        }
    )
    unreadable: set[str] = field(default_factory=set)
    decoded: list[tuple[str, ComponentConfig, str, Node]] = field(default_factory=list)
    references: list[tuple[str, Reference]] = field(default_factory=list)
    pipelines: dict[str, tuple[Mark, str]] = field(default_factory=dict)
    pipelines_written: int = 0
    profiles: list[tuple[str, Mark, str]] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)


def run(config: Config, facts: Facts, problems: Problems) -> None:
    """Record everything that does not hold in `problems.validation`."""
    found = problems.validation
    if not any(facts.configured.values()) and not problems.decoding:
        fix = "write at least receivers, exporters and service"
        found.append(located("empty configuration file", None, "", fix))
        return
    for section in ("receivers", "exporters"):
        if not facts.configured[section] and not problems.decoding:
            text = f"no {_WORDS[section]} configuration specified in config"
            found.append(located(text, None, section, f"add the section {section}"))
    found.extend(_components(facts))
    found.extend(_connector_ids(facts))
    found.extend(_service(config, facts, problems))
    found.extend(_references(facts))
    found.extend(_signals(config, facts))
    if not found and not problems.decoding:
        found.extend(_connectors(config, facts))


def _components(facts: Facts) -> Iterator[str]:
    """The rules that components and their sections have beyond types."""
    for section, component, path, node in facts.decoded:
        start = f"{section}::{component.id}"
        for inner, text in _complaints(component):
            mark, at = spot(text, node, path)
            yield located(f"{'::'.join([start, *inner])}: {text}", mark, at)


def _complaints(component: ComponentConfig) -> Iterator[tuple[list[str], str]]:
    if isinstance(component.cls, Checks):
        for text in component.cls.check(component.config):
            yield [], text
    yield from _section_complaints(component.config, [])


def _section_complaints(
    section: msgspec.Struct, path: list[str]
) -> Iterator[tuple[list[str], str]]:
    """A section may have a `check()` of its own, so that components share it with its keys."""
    check = getattr(section, "check", None)
    if callable(check):
        for text in check():
            yield path, text
    for item in msgspec.structs.fields(section):
        value: Any = getattr(section, item.name)
        if isinstance(value, msgspec.Struct):
            yield from _section_complaints(value, [*path, item.encode_name])


def _connector_ids(facts: Facts) -> Iterator[str]:
    for id_, mark in facts.configured["connectors"].items():
        for section in ("exporters", "receivers"):
            if id_ in facts.configured[section]:
                text = (
                    f"connectors::{id_}: ambiguous ID: Found both {quote(id_)} {_WORDS[section]} and "
                    f"{quote(id_)} connector. Change one of the components' IDs to eliminate "
                    f"ambiguity (e.g. rename {quote(id_)} connector to {quote(id_ + '/connector')})"
                )
                yield located(text, mark, f"connectors.{id_}")


def _service(config: Config, facts: Facts, problems: Problems) -> Iterator[str]:
    if not facts.pipelines_written and not problems.decoding:
        fix = "add service.pipelines with traces, metrics or logs"
        text = "service::pipelines: service must have at least one pipeline"
        yield located(text, None, "service.pipelines", fix)
    for id_, mark, path in facts.profiles:
        text = (
            f"service::pipelines: pipeline {quote(id_)}: profiling signal support is at alpha "
            'level, gated under the "service.profilesSupport" feature gate'
        )
        yield located(text, mark, path, "profiles are not supported here; remove the pipeline")
    for id_, (mark, path) in facts.pipelines.items():
        pipeline = config.pipelines[id_]
        lists = {use.part for use in facts.uses if use.inside.rpartition(".")[0] == path}
        for part in ("receivers", "exporters"):
            if part not in lists and not getattr(pipeline, part):
                text = f"service::pipelines::{id_}: must have at least one {_WORDS[part]}"
                yield located(text, mark, f"{path}.{part}")
    seen: set[tuple[str, str]] = set()
    for use in facts.uses:
        place = "service::extensions" if use.part == "extensions" else _pipeline_of(use, facts)
        if use.part == "processors":
            if (use.inside, use.id) in seen:
                text = f"{place}: references processor {quote(use.id)} multiple times"
                yield located(
                    text,
                    use.mark,
                    use.path,
                    f"remove it, or configure a second one: {quote(use.id.split('/')[0] + '/2')}",
                )
                continue
            seen.add((use.inside, use.id))
        known = set(facts.configured[use.part])
        if use.part in ("receivers", "exporters"):
            known |= set(facts.configured["connectors"])
        if use.id not in known and use.part not in facts.unreadable:
            text = f"{place}: references {_WORDS[use.part]} {quote(use.id)} which is not configured"
            yield located(text, use.mark, use.path, nearest(use.id, known, "configured"))


def _pipeline_of(use: Use, facts: Facts) -> str:
    path = use.inside.rpartition(".")[0]
    id_ = next((id_ for id_, (_, at) in facts.pipelines.items() if at == path), "")
    return f"service::pipelines::{id_}"


def _references(facts: Facts) -> Iterator[str]:
    for place, reference in facts.references:
        known = facts.configured[reference.section]
        if reference.id not in known and reference.section not in facts.unreadable:
            text = (
                f"{place}: references {_WORDS[reference.section]} {quote(reference.id)} "
                "which is not configured"
            )
            fix = nearest(reference.id, known, "configured")
            yield located(text, reference.mark, reference.path, fix)


def _signals(config: Config, facts: Facts) -> Iterator[str]:
    """A component may say that it is made for some signals only."""
    for id_, (mark, path) in facts.pipelines.items():
        pipeline = config.pipelines[id_]
        for part, configured in (
            ("receivers", config.receivers),
            ("processors", config.processors),
            ("exporters", config.exporters),
        ):
            for name in getattr(pipeline, part):
                component = configured.get(name)
                taken = signals_of(component.cls if component is not None else None)
                if pipeline.signal not in taken:
                    text = (
                        f"failed to build pipelines: failed to create {quote(name)} {_WORDS[part]} "
                        f"for data type {quote(pipeline.signal.value)}: telemetry type is not supported"
                    )
                    fix = f"it takes {', '.join(sorted(each.value for each in taken))}"
                    yield located(text, mark, f"{path}.{part}", fix)


def _connectors(config: Config, facts: Facts) -> Iterator[str]:
    """A connector joins pipelines: it is used on both sides, and never in a circle."""
    edges: dict[str, list[tuple[str, str]]] = {}
    for id_, mark in facts.configured["connectors"].items():
        feeding = [p for p in config.pipelines.values() if id_ in p.exporters]
        fed = [p for p in config.pipelines.values() if id_ in p.receivers]
        cls = config.connectors[id_].cls
        pairs = cls.connects if isinstance(cls, Connects) else None
        joined = [
            (source.id, target.id)
            for source in feeding
            for target in fed
            if pairs is None or (source.signal, target.signal) in pairs
        ]
        for mine, place, side, missing in (
            (fed, 1, "receiver", "exporter"),
            (feeding, 0, "exporter", "receiver"),
        ):
            alone = [p.id for p in mine if p.id not in {pair[place] for pair in joined}]
            if alone:
                text = (
                    f"failed to build pipelines: connector {quote(id_)} used as {side} in "
                    f"[{' '.join(alone)}] pipeline but not used in any supported {missing} pipeline"
                )
                words = sorted(f"{source} to {target}" for source, target in pairs or ())
                fix = f"it connects {', '.join(words)}" if words else ""
                yield located(text, mark, f"connectors.{id_}", fix)
        for source, target in joined:
            edges.setdefault(source, []).append((target, id_))
    for start in edges:
        circle = _circle(start, edges)
        if circle:
            words = [
                f"connector {quote(id_)} ({source.split('/')[0]} to {target.split('/')[0]})"
                for source, target, id_ in circle
            ]
            text = "failed to build pipelines: cycle detected: " + " -> ".join([*words, words[0]])
            yield located(text, facts.configured["connectors"][circle[0][2]], "service.pipelines")
            return


def _circle(
    start: str, edges: dict[str, list[tuple[str, str]]]
) -> list[tuple[str, str, str]] | None:
    """The connectors on a way from a pipeline back to itself."""
    waiting: list[list[tuple[str, str, str]]] = [[(start, t, c)] for t, c in edges[start]]
    visited: set[str] = set()
    while waiting:
        way = waiting.pop(0)
        here = way[-1][1]
        if here == start:
            return way
        if here not in visited:
            visited.add(here)
            waiting.extend([*way, (here, t, c)] for t, c in edges.get(here, []))
    return None
