"""
From sources to a `Config`: every step, in order, with all problems reported together.

Resolving comes first and ends the loading when it fails, because half a tree would only produce
errors about the other half. Decoding and the checks of the whole run always both: the user who wrote
two mistakes wants to hear of two. A component that does not decode still counts as configured, so
that one typo is one message.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from collector import components
from collector.config import checks, ids
from collector.config.decode import BAD, Decoder, Path
from collector.config.expansion import Expansion
from collector.config.model import ComponentConfig, Config, PipelineConfig
from collector.config.nodes import Mark, Node, go_type, plain
from collector.config.problems import Problems, located, nearest, quote
from collector.config.sources import Retriever, gather
from collector.config.telemetry import IN_EFFECT, ServiceTelemetry
from collector.config.without_effect import without_effect
from collector.model import Signal

SECTIONS: Final = ("receivers", "processors", "exporters", "connectors", "extensions")
_TOP: Final = (*SECTIONS, "service")
_LOGGING: Final = "the logging exporter has been deprecated, use the debug exporter instead"


class _Pipeline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    receivers: tuple[str, ...] = ()
    processors: tuple[str, ...] = ()
    exporters: tuple[str, ...] = ()


def load(
    uris: Sequence[str],
    sets: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    *,
    registry: Mapping[str, Mapping[str, str]] = components.KINDS,
    validate: bool = True,
) -> Config:
    """
    Load, decode and check a configuration; opens no port and starts nothing.

    Args:
        uris: what `--config` names, merged left to right.
        sets: what `--set` says, applied last.
        environ: where `${NAME}` comes from.
        registry: type -> import string, by section.
        validate: whether what no single value shows is checked as well.

    Raises:
        InvalidConfig: with every problem.
    """
    problems = Problems()
    root = _resolve(uris, sets, environ, problems)
    loading = _Loading(problems, registry)
    config = loading.config(root)
    if validate:
        checks.run(config, loading.facts, problems)
        for text in without_effect(loading.facts):
            problems.warn(text)
    problems.stop()
    return config


def read_source(
    uris: Sequence[str], sets: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """
    The merged and expanded mapping, not decoded.

    Raises:
        InvalidConfig: a source cannot be read or expanded.
    """
    source: dict[str, Any] = plain(_resolve(uris, sets, environ, Problems()))
    return source


def _resolve(
    uris: Sequence[str], sets: Sequence[str], environ: Mapping[str, str], problems: Problems
) -> Node:
    retriever = Retriever(environ)
    root = gather(uris, sets, retriever, problems)
    if not uris:
        fix = "name one with --config, for example --config otel-collector.yaml"
        problems.usage.insert(
            0, located("at least one config flag must be provided", None, "", fix)
        )
    problems.stop()
    root = Expansion(retriever, problems).expand(root)
    problems.stop()
    return root


@dataclass(slots=True)
class _Loading:
    """Decodes the sections of one configuration."""

    problems: Problems
    registry: Mapping[str, Mapping[str, str]]
    facts: checks.Facts = field(default_factory=checks.Facts)

    def config(self, root: Node) -> Config:
        """Everything that could be decoded; the rest is in `problems`."""
        for key, node in root.value.items():
            if key not in _TOP:
                self._problem(f"'' has invalid keys: {key}", node.mark, key, nearest(key, _TOP))
        found = {section: self._section(section, root.value.get(section)) for section in SECTIONS}
        service = self._map("service", root.value.get("service"))
        valid = ("telemetry", "extensions", "pipelines")
        for key, node in service.items():
            if key not in valid:
                text = f"'service' has invalid keys: {key}"
                self._problem(text, node.mark, f"service.{key}", nearest(key, valid))
        return Config(
            receivers=found["receivers"],
            processors=found["processors"],
            exporters=found["exporters"],
            connectors=found["connectors"],
            extensions=found["extensions"],
            pipelines=self._pipelines(service.get("pipelines")),
            service_extensions=self._extensions(service.get("extensions")),
            telemetry=self._telemetry(service.get("telemetry")),
            warnings=self.problems.warnings,
            source=plain(root),
        )

    def _problem(self, text: str, mark: Mark, path: str, fix: str = "") -> None:
        self.problems.decoding.append(located(text, mark, path, fix))

    def _map(self, path: str, node: Node | None) -> dict[str, Node]:
        if node is None or node.value is None:
            return {}
        if isinstance(node.value, dict):
            return node.value
        text = f"'{path}' expected a map or struct, got {quote(go_type(node.value))}"
        self._problem(text, node.mark, path)
        return {}

    def _ids(self, section: str, entries: dict[str, Node]) -> dict[str, tuple[str, str, Node]]:
        """Id -> (type, key as written, node); ids that cannot be are problems."""
        found: dict[str, tuple[str, str, Node]] = {}
        parse = ids.pipeline if section == "service.pipelines" else ids.component
        for key, node in entries.items():
            path = f"{section}.{key}"
            try:
                id_, kind = parse(key)
            except ValueError as error:
                fix = "valid signals: traces, metrics, logs" if "signal" in str(error) else ""
                self._problem(f"'{section}' {error}", node.mark, path, fix)
                continue
            if id_ in found:
                text = f"'{section}' duplicate name {quote(key)} after unmarshaling {id_}"
                fix = f"the other is {quote(found[id_][1])}, {found[id_][2].mark}"
                self._problem(text, node.mark, path, fix)
                continue
            found[id_] = kind, key, node
        return found

    # --- components ---

    def _section(self, section: str, node: Node | None) -> dict[str, ComponentConfig]:
        found = {}
        entries = self._map(section, node)
        if node is not None and not isinstance(node.value, dict | None):
            self.facts.unreadable.add(section)
        for id_, (kind, key, body) in self._ids(section, entries).items():
            self.facts.configured[section][id_] = body.mark
            component = self._component(section, id_, kind, key, body)
            if component is not None:
                found[id_] = component
        return found

    def _component(
        self, section: str, id_: str, kind: str, key: str, node: Node
    ) -> ComponentConfig | None:
        path = Path(f"{section}.{key}")
        cls = self._class(section, id_, kind, node.mark, path.whole)
        if cls is None:
            return None
        if node.value is not None and not isinstance(node.value, dict):
            text = (
                f"'{section}[{id_}]' expected type 'map[string]interface {{}}', "
                f"got unconvertible type '{go_type(node.value)}'"
            )
            fix = f"write {quote(key)}: with its keys below it, or nothing for all defaults"
            self._problem(text, node.mark, path.whole, fix)
            return None
        prefix = f"'{section}' error reading configuration for {quote(id_)}: "
        decoder = Decoder(self.problems, prefix, place=f"{section}::{id_}")
        config = decoder.struct(cls.Config, node, path)
        self.facts.references.extend(
            (f"{section}::{id_}", reference) for reference in decoder.references
        )
        if config is BAD:
            return None
        component = ComponentConfig(id=id_, type=kind, cls=cls, config=config)
        self.facts.decoded.append((section, component, path.whole, node))
        return component

    def _class(self, section: str, id_: str, kind: str, mark: Mark, path: str) -> Any:
        """The component's class; None when there is none, with the problem recorded."""
        known = self.registry.get(section, {})
        valid = f"(valid values: [{' '.join(sorted(known))}])"
        text = f"'{section}' unknown type: {quote(kind)} for id: {quote(id_)} {valid}"
        fix = nearest(kind, known, "valid types")
        if section == "exporters" and kind == "logging" and kind not in known:
            text, fix = f"'{section}' {_LOGGING}", "rename it to debug"
        elif ":" in kind or kind in known:
            try:
                cls = components.resolve(section, known.get(kind, kind))
            except (ImportError, AttributeError) as error:
                if kind in known:
                    text = f"'{section}' error reading configuration for {quote(id_)}: {error}"
                    fix = "install what this component needs"
                else:
                    fix = f"cannot be imported: {error}"
            else:
                if isinstance(getattr(cls, "Config", None), type):
                    return cls
                fix = f"{kind} has no Config, a msgspec.Struct with its keys"
        self._problem(text, mark, path, fix)
        return None

    # --- service ---

    def _pipelines(self, node: Node | None) -> dict[str, PipelineConfig]:
        found = {}
        entries = self._map("service.pipelines", node)
        self.facts.pipelines_written = len(entries)
        for id_, (signal, key, body) in self._ids("service.pipelines", entries).items():
            path = Path(f"service.pipelines.{key}", f"service.pipelines[{id_}]")
            if signal == "profiles":
                self.facts.profiles.append((id_, body.mark, path.whole))
                continue
            lists = Decoder(self.problems).struct(_Pipeline, body, path)
            if lists is BAD:
                continue
            parts = {
                part: self._names(getattr(lists, part), body, path.key(part), part)
                for part in ("receivers", "processors", "exporters")
            }
            self.facts.pipelines[id_] = (body.mark, path.whole)
            found[id_] = PipelineConfig(id=id_, signal=Signal(signal), **parts)
        return found

    def _extensions(self, node: Node | None) -> tuple[str, ...]:
        if node is None or node.value is None:
            return ()
        path = Path("service.extensions", "service.extensions")
        body = Node({"extensions": node}, node.mark)
        names = Decoder(self.problems).value(_LIST, node, path)
        return () if names is BAD else self._names(names, body, path, "extensions")

    def _names(self, names: tuple[str, ...], body: Node, path: Path, part: str) -> tuple[str, ...]:
        """Ids in their one spelling; where each stands is kept for the checks."""
        found: dict[str, None] = {}
        written = body.value.get(part) if isinstance(body.value, dict) else None
        for index, name in enumerate(names):
            mark = body.mark
            if written is not None:
                mark = (
                    written.value[index].mark if isinstance(written.value, list) else written.mark
                )
            at = path.item(index)
            try:
                id_, _ = ids.component(name)
            except ValueError as error:
                self._problem(f"'{at.inner}' {error}", mark, at.whole)
                continue
            self.facts.uses.append(checks.Use(path.whole, part, id_, mark, at.whole))
            found[id_] = None
        return tuple(found)

    def _telemetry(self, node: Node | None) -> ServiceTelemetry:
        if node is None or node.value is None:
            return ServiceTelemetry()
        path = Path("service.telemetry", "service.telemetry")
        telemetry = Decoder(self.problems).struct(ServiceTelemetry, node, path)
        if telemetry is BAD:
            return ServiceTelemetry()
        for group, body in node.value.items():
            inner = body.value if isinstance(body.value, dict) and group != "resource" else None
            for key, child in (inner or {group: body}).items():
                name = f"{group}.{key}" if inner else group
                if name not in IN_EFFECT and child.value is not None:
                    text = f"service.telemetry.{name} is accepted but has no effect yet"
                    self.problems.warn(f"{text}\n  {child.mark}")
        checked: ServiceTelemetry = telemetry
        return checked


_LIST: Final = msgspec.inspect.type_info(tuple[str, ...])
