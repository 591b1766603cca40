"""
`${...}` in values: environment variables, files and YAML snippets.

The algorithm is the OpenTelemetry Collector's, oddities included, because secrets and paths in
running configurations rely on them: the innermost reference first; an odd number of `$` before it
escapes it; what was inserted is expanded again; at last `$$` becomes `$` everywhere. One oddity is
not kept: there, an escaped reference ends the expansion of its string, and what stands behind it
goes to the component as `${NAME}` without a word. A value that is exactly one `${...}` may become a list or a map and keeps
its text beside it (see nodes.py). Rounds, retrievals and sizes are bounded, because a variable can
name itself.
"""

import re
from dataclasses import replace
from typing import Final

from collector.config.dialect import LARGEST
from collector.config.nodes import Node, moved
from collector.config.problems import Problems, located, quote
from collector.config.sources import SCHEMES, URI, Retrieved, Retriever, SourceError

_ROUNDS: Final = 1000
_DEEPEST: Final = 200
_MOST: Final = 20_000
_FOREVER: Final = "too many recursive expansions"


class _TooManyError(Exception):
    """One value does not come to rest."""


def find(text: str) -> str:
    """The reference to expand next: the first `}` and the last `${` before it; "" for none left."""
    start = 0
    while (close := text.find("}", start)) >= 0:
        opened = text.rfind("${", start, close)
        if opened < 0:
            start = close + 1
            continue
        before = text[start:opened]
        dollars = len(before) - len(before.rstrip("$"))
        if dollars % 2 == 0:
            return text[opened : close + 1]
        start = close + 1
    return ""


class Expansion:
    """Expands one merged configuration."""

    def __init__(self, retriever: Retriever, problems: Problems) -> None:
        self._retriever = retriever
        self._problems = problems
        self._left = _MOST

    def expand(self, root: Node) -> Node:
        """The tree with every reference replaced and every `$$` unescaped."""
        value = {}
        for section, node in root.value.items():
            value[section] = node
            try:
                for _ in range(_ROUNDS):
                    settled = self._pass(value[section], section, 0)
                    if settled is value[section]:
                        break
                    value[section] = settled
                else:
                    raise _TooManyError
            except (_TooManyError, RecursionError):
                fix = "a variable or file refers to itself"
                self._problems.resolving.append(located(_FOREVER, node.mark, section, fix))
        return _unescaped(Node(value, root.mark))

    def _pass(self, node: Node, path: str, depth: int) -> Node:
        """The node after one round; the same object when nothing changed."""
        if depth > _DEEPEST:
            raise _TooManyError
        value = node.value
        if isinstance(value, str):
            return self._string(node, value, path)
        if isinstance(value, dict):
            pairs = {
                key: self._pass(child, f"{path}.{key}", depth + 1) for key, child in value.items()
            }
            changed = any(pairs[key] is not child for key, child in value.items())
            expanded = Node(pairs, node.mark, node.text) if changed else node
        elif isinstance(value, list):
            items = [
                self._pass(child, f"{path}[{index}]", depth + 1)
                for index, child in enumerate(value)
            ]
            changed = any(new is not old for new, old in zip(items, value, strict=True))
            expanded = Node(items, node.mark, node.text) if changed else node
        else:
            expanded = node
        if expanded.text is None or "${" not in expanded.text:
            return expanded
        text = self._string(Node(expanded.text, node.mark), expanded.text, path)
        taken = text.text if text.text is not None else text.value
        return expanded if taken == expanded.text else replace(expanded, text=str(taken))

    def _string(self, node: Node, text: str, path: str) -> Node:
        reference = find(text) if "${" in text else ""
        if not reference:
            return node
        try:
            found = self._retrieve(reference, node, path)
        except SourceError as error:
            problem = located(str(error), node.mark, path, error.fix)
            if problem not in self._problems.resolving:
                self._problems.resolving.append(problem)
            return node
        if reference == text:
            if isinstance(found.node.value, str) and found.text == text:
                raise _TooManyError
            # Lines inside an included file are the file's; a variable has none of its own.
            inside = reference.startswith("${file:") and not isinstance(found.node.value, str)
            return found.node if inside else moved(found.node, node.mark)
        unescaped = rf"(?<!\$)((?:\$\$)*){re.escape(reference)}"
        spliced = re.sub(unescaped, lambda match: match[1] + found.text, text)
        if len(spliced) > LARGEST:
            raise _TooManyError
        return Node(spliced, node.mark, newline=node.newline)

    def _retrieve(self, reference: str, node: Node, path: str) -> Retrieved:
        self._left -= 1
        if self._left < 0:
            raise _TooManyError
        uri = reference[2:-1]
        if ":" not in uri:
            uri = f"env:{uri}"
        match = URI.fullmatch(uri)
        if match is None:
            raise SourceError(f"invalid uri: {quote(uri)}", _default_fix(uri))
        scheme, rest = match.groups()
        if "$" in rest:
            raise SourceError(f"the uri {quote(uri)} contains unsupported characters ('$')")
        if scheme not in SCHEMES:
            raise SourceError(
                f"scheme {quote(scheme)} is not supported for uri {quote(uri)}", _default_fix(uri)
            )
        found = self._retriever.retrieve(scheme, rest, str(node.mark))
        if found.unset:
            name, state = found.unset
            text = f"Configuration references {state} environment variable {quote(name)}"
            fix = f"set it, or give a default: ${{env:{name}:-default}}"
            self._problems.warn(located(text, node.mark, path, fix))
        return found


def _default_fix(uri: str) -> str:
    name, dash, default = uri.partition(":-")
    if dash:
        return f"write ${{env:{name}:-{default}}}"
    return f"schemes: {', '.join(SCHEMES)}"


def _unescaped(node: Node) -> Node:
    value = node.value
    if isinstance(value, str):
        value = value.replace("$$", "$")
    elif isinstance(value, dict):
        value = {key: _unescaped(child) for key, child in value.items()}
    elif isinstance(value, list):
        value = [_unescaped(child) for child in value]
    text = node.text.replace("$$", "$") if node.text is not None else None
    return Node(value, node.mark, text, node.newline)
