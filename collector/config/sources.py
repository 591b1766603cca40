"""
Where configuration comes from: `--config` URIs and `--set`, retrieved and merged left to right.

A URI without a colon is a file; else `file:`, `env:` and `yaml:` are taken, which are also the
schemes of `${...}`, so one retriever serves both. Nothing is fetched over a network: a
configuration server that is down must not keep a collector from starting.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from collector.config import dialect
from collector.config.nodes import Mark, Node, go_type, merged, moved
from collector.config.problems import Problems, located, nearest, quote

SCHEMES: Final = ("env", "file", "yaml")
URI: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_DRIVE: Final = re.compile(r"[A-Za-z]:")


class SourceError(ValueError):
    """
    A source cannot be retrieved.

    Args:
        text: the OpenTelemetry Collector's text.
        fix: what to do about it.
    """

    def __init__(self, text: str, fix: str = "") -> None:
        super().__init__(text)
        self.fix = fix


@dataclass(slots=True, frozen=True)
class Retrieved:
    """
    What stands behind a URI.

    Args:
        text: as it stands there.
        node: the text as YAML; text that is not valid YAML is itself, verbatim.
        invalid: why it is not valid YAML; empty when it is.
        unset: the environment variable that is "unset" or "empty", and which of the two it is.
    """

    text: str
    node: Node
    invalid: str = ""
    unset: tuple[str, str] | None = None


class Retriever:
    """Reads each URI once, however often it is named."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._seen: dict[str, Retrieved] = {}

    def retrieve(self, scheme: str, rest: str, label: str) -> Retrieved:
        """
        What stands behind `scheme:rest`.

        Args:
            scheme: one of SCHEMES.
            rest: the URI behind the colon.
            label: what marks call the text, when it is no file.

        Raises:
            SourceError: it cannot be read.
        """
        uri = f"{scheme}:{rest}"
        if uri not in self._seen:
            self._seen[uri] = self._read(scheme, rest, label)
        return self._seen[uri]

    def _read(self, scheme: str, rest: str, label: str) -> Retrieved:
        if scheme == "yaml":
            return _parsed(rest, label)
        if scheme == "file":
            return _parsed(_file(rest), rest, is_file=True)
        name, dash, default = rest.partition(":-")
        if not _NAME.fullmatch(name):
            raise SourceError(
                f"environment variable {quote(name)} has invalid name: "
                "must match regex ^[a-zA-Z_][a-zA-Z0-9_]*$",
                "write $$ for a dollar sign that is not the start of a variable",
            )
        value = self._environ.get(name)
        if value is None and dash:
            return _parsed(default, label)
        found = _parsed(value or "", label)
        if value:
            return found
        return Retrieved("", found.node, unset=(name, "empty" if value == "" else "unset"))


def _file(path: str) -> str:
    try:
        size = Path(path).stat().st_size
        if size > dialect.LARGEST:
            raise SourceError(
                f"unable to read the file file:{path}: {size} bytes, more than {dialect.LARGEST}"
            )
        return Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise SourceError(
            f"unable to read the file file:{path}: open {path}: {reason}",
            f"relative paths start at {Path.cwd()}",
        ) from None
    except UnicodeDecodeError as error:
        raise SourceError(
            f"unable to read the file file:{path}: not UTF-8 at byte {error.start}"
        ) from None


def _parsed(text: str, label: str, *, is_file: bool = False) -> Retrieved:
    newline = is_file and text.endswith("\n")
    invalid = ""
    try:
        node = dialect.parse(text, label)
    except dialect.YamlError as error:
        node, invalid = Node(text, Mark(label)), str(error)
    if not is_file and "\n" not in text:
        node = moved(node, Mark(label))
    if isinstance(node.value, str):
        # Text stays as it stands, quotes and comments included; only other types are parsed.
        node = Node(text, node.mark)
    return Retrieved(text, Node(node.value, node.mark, text, newline), invalid)


def gather(
    uris: Sequence[str], sets: Sequence[str], retriever: Retriever, problems: Problems
) -> Node:
    """The mapping that all sources make together, not yet expanded."""
    whole = Node({}, Mark(""))
    for scheme, rest, label in [*_configs(uris, problems), *_sets(sets, problems)]:
        try:
            found = retriever.retrieve(scheme, rest, label)
        except SourceError as error:
            problems.resolving.append(
                located(f"cannot retrieve the configuration: {error}", None, "", error.fix)
            )
            continue
        if found.node.value is None:
            continue
        if isinstance(found.node.value, dict):
            whole = merged(whole, found.node)
            continue
        text = f"retrieved value (type={go_type(found.node.value)}) cannot be used as a Conf"
        if found.invalid:
            text += f": assuming string type since contents are not valid YAML: {found.invalid}"
        fix = "the text must be a YAML mapping with the sections receivers, exporters, service, ..."
        problems.resolving.append(located(text, Mark(label), "", fix))
    return whole


def _configs(uris: Sequence[str], problems: Problems) -> list[tuple[str, str, str]]:
    found = []
    for uri in uris:
        match = URI.fullmatch(uri)
        if ":" not in uri or _DRIVE.match(uri):
            found.append(("file", uri, uri))
        elif match is None:
            problems.usage.append(
                located(f"invalid uri: {quote(uri)}", None, "", "write a path, or scheme:text")
            )
        elif match[1] in SCHEMES:
            label = match[2] if match[1] == "file" else uri if match[1] == "env" else "yaml:"
            found.append((match[1], match[2], label))
        else:
            fix = (
                "configuration is not fetched over a network: download it and name the file"
                if match[1] in ("http", "https")
                else nearest(match[1], SCHEMES, "schemes") + f'; for a file write "file:{uri}"'
            )
            problems.usage.append(located(f"unsupported scheme on URI {quote(uri)}", None, "", fix))
    return found


def _sets(sets: Sequence[str], problems: Problems) -> list[tuple[str, str, str]]:
    found = []
    for option in sets:
        key, equal, value = option.partition("=")
        if not equal:
            text = f'invalid argument {quote(option)} for "--set" flag: missing equal sign'
            fix = "write --set section.component.key=value"
            problems.usage.append(located(text, None, "", fix))
            continue
        path = key.strip().replace(".", "::")
        found.append(("yaml", f"{path}: {value.strip()}", f"--set {key.strip()}"))
    return found
