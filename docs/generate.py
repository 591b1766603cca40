"""
The generated parts of the reference: keys of components, settings, attributes, commands, LogQL.

Each part stands between `<!-- generated: SUBJECT -->` and `<!-- end of generated -->` in a page that people
write, so the Markdown is complete and readable in the repository. The text comes from where the thing is
defined: the string under a field of a component's `Config`, the table of settings, the string under an
attribute's name, the help of a command. `python docs/generate.py` writes the parts, `--check` says which
are out of date (`tests/test_docs.py` does the same).
"""

import ast
import functools
import inspect
import json
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec

DOCS: Final = Path(__file__).parent
PART: Final = re.compile(
    r"(<!-- generated: (?P<subject>.+?) -->\n).*?(<!-- end of generated -->)", re.DOTALL
)
LONGEST_DEFAULT: Final = 60
"""A default of more characters is a table of its own: the page's prose says what it is."""
SHARED: Final = {
    "sending_queue": "delivery.md",
    "retry_on_failure": "delivery.md",
}
"""Keys that every exporter has: they are described once."""


def cell(text: object) -> str:
    """A text inside a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(*head: str, rows: Iterator[tuple[str, ...]]) -> str:
    """A Markdown table."""
    rule = "|".join("---" for _ in head)
    lines = [" | ".join(cell(each) for each in row) for row in rows]
    return f"| {' | '.join(head)} |\n|{rule}|\n" + "".join(f"| {line} |\n" for line in lines)


def keys(kind: str, name: str) -> str:
    """
    The keys of a component, sections as dotted paths.

    Args:
        kind: a section of the YAML, such as `exporters`.
        name: the type.
    """
    from collector import components  # noqa: PLC0415 - the library's parts need no collector
    from collector.config import describe  # noqa: PLC0415

    described = describe(components.resolve(kind, name).Config)
    if not described:
        return "No keys.\n"
    return table("key", "type", "default", "meaning", rows=_key_rows(described, "", {}))


def shared(section: str) -> str:
    """The keys of `sending_queue` or `retry_on_failure`, which stand around every exporter."""
    from collector import components  # noqa: PLC0415
    from collector.config import describe  # noqa: PLC0415

    described = describe(components.resolve("exporters", "otlp_http").Config)
    rows = _key_rows(described[section]["keys"], f"{section}.", {})
    return table("key", "type", "default", "meaning", rows=rows)


def _key_rows(
    described: dict[str, Any], path: str, seen: dict[str, str]
) -> Iterator[tuple[str, ...]]:
    """Rows of a section; `seen` has the sections that stand above, which are not written again."""
    for name, entry in described.items():
        where = path + name
        if not path and name in SHARED:
            depth = f"[delivery](../{SHARED[name]})"
            yield f"`{where}`", entry["type"], f"`{entry['default']}`", f"See {depth}."
            continue
        default = "required" if entry.get("required") else _default(entry.get("default", ""))
        kind = entry["type"].replace("one of ,", 'one of "",')
        inner = entry.get("keys", {})
        mark = json.dumps(inner, default=str, sort_keys=True)
        if inner and mark in seen:
            yield (
                f"`{where}`",
                kind,
                default,
                f"{entry['help']} Its keys are those of `{seen[mark]}`.",
            )
            continue
        seen[mark] = where
        yield f"`{where}`", kind, default, entry["help"]
        many = "[]" if kind.startswith("list") else ""
        yield from _key_rows(inner, f"{where}{many}.", seen)


def _default(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "none" if value is None or value == "" else f"`{value}`"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return f"`{text}`" if len(text) <= LONGEST_DEFAULT else "see below"


def settings() -> str:
    """Every setting of `telemetry`: argument, variables, default, meaning."""
    from dataclasses import fields  # noqa: PLC0415

    from telemetry._config.settings import Settings  # noqa: PLC0415

    def rows() -> Iterator[tuple[str, ...]]:
        for each in fields(Settings):
            if "env" in each.metadata:
                names = ", ".join(f"`{name}`" for name in each.metadata["env"])
                names += " (and per signal)" if each.metadata["per_signal"] else ""
                default = _setting_default(each.default)
                yield f"`{each.name}`", names, default, each.metadata["doc"]

    return table("argument", "variables", "default", "meaning", rows=rows())


def _setting_default(value: Any) -> str:
    if value is None or value in ((), {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{','.join(map(str, value))}`" if isinstance(value, tuple) else f"`{value}`"


def attributes() -> str:
    """Every attribute, event and metric name, under the heading of its group."""
    package = DOCS.parent / "telemetry"
    parts = []
    for source in sorted({package / "attributes.py", *package.glob("_attributes/*.py")}):
        for heading, rows in _groups(source.read_text()):
            body = table("name", "meaning", rows=iter(rows))
            parts.append(f"## {heading[0].upper()}{heading[1:]}\n\n{body}")
    return "\n".join(parts)


def _groups(source: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    lines = source.split("\n")
    heading, rows = "", list[tuple[str, str]]()
    body = ast.parse(source).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        for line in lines[_start(lines, node.lineno) : node.lineno - 1]:
            if found := re.fullmatch(r"# --- (.+) ---", line):
                if rows:
                    yield heading, rows
                heading, rows = found[1], []
        match node, after:
            case (
                ast.AnnAssign(value=ast.Constant(value=str(name))),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                rows.append((f"`{name}`", text))
    if rows:
        yield heading, rows


def _start(lines: list[str], line: int) -> int:
    """The first of the comment and empty lines above a line, counted from 0."""
    above = line - 1
    while above > 0 and (not lines[above - 1].strip() or lines[above - 1].startswith("#")):
        above -= 1
    return above


def command(program: str) -> str:
    """
    Every verb of a program, with its help, arguments and options.

    Args:
        program: `collector` or `telemetry`.
    """
    if program == "collector":
        from collector.cli import cli as group  # noqa: PLC0415
    else:
        from telemetry.cli import main as group  # noqa: PLC0415
    return "\n".join(_verbs(group, program))


def _verbs(given: click.Command, name: str) -> Iterator[str]:
    context = click.Context(given, info_name=name)
    pieces = " ".join(given.collect_usage_pieces(context))
    text = inspect.cleandoc((given.help or "").replace("\b\n", ""))
    yield f"## `{name}`\n\n```text\n{name} {pieces}\n```\n\n{text}\n"
    options = [each for each in given.params if isinstance(each, click.Option) and not each.hidden]
    if options:
        yield table("option", "default", "meaning", rows=_option_rows(options))
    if isinstance(given, click.Group):
        for verb in given.list_commands(context):
            if (inner := given.get_command(context, verb)) is not None and not inner.hidden:
                yield from _verbs(inner, f"{name} {verb}")


def _option_rows(options: list[click.Option]) -> Iterator[tuple[str, ...]]:
    for each in options:
        names = ", ".join(f"`{name}`" for name in (*each.opts, *each.secondary_opts))
        kind = "" if each.is_flag else f" {each.make_metavar(click.Context(click.Command('x')))}"
        default = each.default
        shown = "" if default in (None, False, ()) or callable(default) else f"`{default}`"
        if "UNSET" in repr(default).upper():
            shown = ""
        yield names + kind, shown, each.help or ""


def logql() -> str:
    """Every construct of LogQL: supported, or the error that its example gets."""
    from collector.query.logql import QueryError, parse  # noqa: PLC0415

    source = runpy.run_path(str(DOCS / "logql_constructs.py"))
    constructs: dict[str, tuple[tuple[str, str, str], ...]] = source["CONSTRUCTS"]

    def row(name: str, example: str, note: str) -> tuple[str, ...]:
        try:
            parse(example)
        except QueryError as refused:
            return name, f"`` {example} ``", str(refused)
        return name, f"`` {example} ``", f"supported; {note}" if note else "supported"

    parts = []
    for heading, rows in constructs.items():
        body = table("construct", "example", "answer", rows=(row(*each) for each in rows))
        parts.append(f"### {heading}\n\n{body}")
    return "\n".join(parts)


SUBJECTS: Final[dict[str, Callable[[str], str]]] = {
    "keys": lambda rest: keys(*rest.split("/")),
    "shared": shared,
    "settings": lambda _: settings(),
    "attributes": lambda _: attributes(),
    "command": command,
    "logql": lambda _: logql(),
}


@functools.cache
def part(subject: str) -> str:
    """The text of one generated part, such as `keys exporters/file`."""
    what, _, rest = subject.partition(" ")
    return SUBJECTS[what](rest)


def fresh(text: str) -> str:
    """A page with all of its generated parts made anew."""
    return PART.sub(lambda found: f"{found[1]}\n{part(found['subject'])}\n{found[3]}", text)


def stale() -> Iterator[Path]:
    """The pages whose generated parts are out of date."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        if fresh(text) != text:
            yield page


def main() -> int:
    """Write, or check, every page; the number of pages that are out of date decides the exit code."""
    check = sys.argv[1:] == ["--check"]
    found = list(stale())
    for page in found:
        sys.stderr.write(f"{'out of date' if check else 'written'}: {page.relative_to(DOCS)}\n")
        if not check:
            page.write_text(fresh(page.read_text()))
    return int(check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
