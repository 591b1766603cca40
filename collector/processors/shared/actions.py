"""
The actions of the `attributes` and `resource` processors: a list of edits of one attribute map.

Each action becomes one function when the processor is made, so that nothing is looked up or parsed
per item. A function says whether it changed anything: a batch that is unchanged keeps the bytes
that it came with.

An action that cannot work on a value (text that is no number, say) leaves it as it is.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec

from collector.processors.ottl.regex import Budget, compiled
from collector.processors.shared.attribute_map import (
    INT_MAX,
    INT_MIN,
    bytes_of,
    find,
    get,
    put,
    remove,
    set_value,
    text_of,
    value_of,
)

Edit = Callable[[Any, Budget], bool]
"""Edits attributes in place; whether it changed anything."""

WRITES: Final = ("insert", "update", "upsert")
WHOLE: Final = re.compile(r"[+-]?[0-9]{1,19}")
FRACTION: Final = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf(?:inity)?|nan)", re.IGNORECASE
)
LONGEST_NUMBER: Final = 400


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One edit."""

    action: Literal["insert", "update", "upsert", "delete", "hash", "extract", "convert"]
    """`insert`: only when the key is absent; `update`: only when it is there; `upsert`: both;
    `delete`; `hash`: SHA-1 in hex; `extract`: named groups of `pattern` become attributes;
    `convert`: to `converted_type`."""
    key: str = ""
    """The attribute. `delete` and `hash` take `pattern` instead or as well."""
    value: Any = None
    """What to write: text, number, bool, list or map."""
    from_attribute: str = ""
    """Write the value of this attribute; nothing when it is absent."""
    from_context: str = ""
    """Not supported: the metadata of requests is not kept."""
    default_value: Any = None
    """Written when `from_attribute` is absent."""
    pattern: str = ""
    """`extract`: applied to the value. `delete`, `hash`: to the names of attributes."""
    converted_type: Literal["", "int", "double", "string"] = ""
    """The type for `convert`."""


def complaints(action: Action) -> Iterator[str]:
    """What is wrong with an action."""
    what = f'action "{action.action}"'
    sources = [action.value is not None, bool(action.from_attribute), bool(action.from_context)]
    if action.from_context:
        yield (
            f'{what}: from_context "{action.from_context}" is not supported, because the '
            "metadata of requests is not kept; use value or from_attribute"
        )
    if action.action in WRITES:
        if sum(sources) > 1:
            yield f"{what}: only one of value, from_attribute and from_context may be set"
        elif not any(sources) and action.default_value is None:
            yield f"{what}: one of value, from_attribute or default_value must be set"
        if action.pattern or action.converted_type:
            yield f"{what}: pattern and converted_type do not apply"
    elif any(sources) or action.default_value is not None:
        yield f"{what}: value, from_attribute, from_context and default_value do not apply"
    if action.action in ("delete", "hash"):
        if not action.key and not action.pattern:
            yield f"{what}: key or pattern must be set"
    elif not action.key:
        yield f"{what}: key must be set"
    if action.action == "convert" and not action.converted_type:
        yield f"{what}: converted_type must be int, double or string"
    for name, value in (("value", action.value), ("default_value", action.default_value)):
        problem = unfit(value)
        if problem:
            yield f"{what}: {name} {problem}"
    if not action.pattern:
        if action.action == "extract":
            yield f"{what}: pattern must be set"
        return
    try:
        regex = compiled(action.pattern).regex
    except ValueError as error:
        yield f"{what}: {error}"
        return
    if action.action == "extract" and (not regex.groups or len(regex.groupindex) != regex.groups):
        yield f"{what}: every group of the pattern must be named, as in (?P<name>...)"


def unfit(value: Any) -> str:
    """Why a value from YAML can be no attribute; empty when it can."""
    match value:
        case None | bool() | str() | float():
            return ""
        case int():
            return "" if INT_MIN <= value <= INT_MAX else "is no 64-bit number"
        case list():
            return next((found for found in map(unfit, value) if found), "")
        case dict():
            return next((found for found in map(unfit, value.values()) if found), "")
    return f"is a {type(value).__name__}, which no attribute can be"


def problems(actions: Sequence[Action], name: str) -> list[str]:
    """The complaints about a list of actions, with their places."""
    if not actions:
        return [f"{name} must not be empty"]
    return [
        f"{name}[{place}]: {text}"
        for place, action in enumerate(actions)
        for text in complaints(action)
    ]


def edits(actions: Sequence[Action]) -> Edit:
    """All actions as one function."""
    made = [_EDITS[action.action](action) for action in actions]

    def run(attributes: Any, budget: Budget) -> bool:
        changed = False
        for edit in made:
            changed |= edit(attributes, budget)
        return changed

    return run


def _write(action: Action) -> Edit:
    key, source, default = action.key, action.from_attribute, action.default_value
    fixed = default if action.value is None else action.value
    new, old = action.action != "update", action.action != "insert"

    def write(attributes: Any, _: Budget) -> bool:
        pair = find(attributes, key)
        if not (new if pair is None else old):
            return False
        value = fixed
        given = get(attributes, source) if source else None
        if given is not None:
            if pair is None:
                attributes.add(key=key).value.CopyFrom(given)
                return True
            if pair.value == given:
                return False
            pair.value.CopyFrom(given)
            return True
        if value is None:
            return False
        set_value(attributes.add(key=key).value if pair is None else pair.value, value)
        return True

    return write


def _names(action: Action) -> Callable[[str, Budget], bool]:
    key = action.key
    if not action.pattern:
        return lambda name, _: name == key
    pattern = compiled(action.pattern)
    return lambda name, budget: (bool(key) and name == key) or pattern.found_in(name, budget)


def _delete(action: Action) -> Edit:
    wanted = _names(action)

    def delete(attributes: Any, budget: Budget) -> bool:
        return remove(attributes, lambda name: wanted(name, budget)) > 0

    return delete


def _hash(action: Action) -> Edit:
    wanted = _names(action)

    def hash_(attributes: Any, budget: Budget) -> bool:
        changed = False
        for pair in attributes:
            if wanted(pair.key, budget):
                data = bytes_of(value_of(pair.value))
                # The OpenTelemetry Collector's choice, for values that stay comparable; it hides
                # nothing that can be guessed. `redaction` has keyed hashes.
                pair.value.string_value = hashlib.sha1(data, usedforsecurity=False).hexdigest()
                changed = True
        return changed

    return hash_


def _extract(action: Action) -> Edit:
    key, pattern = action.key, compiled(action.pattern)

    def extract(attributes: Any, budget: Budget) -> bool:
        value = get(attributes, key)
        if value is None or value.WhichOneof("value") != "string_value":
            return False
        found = pattern.match(value.string_value, budget)
        if found is None:
            return False
        for name, text in found.groupdict(default="").items():
            put(attributes, name).string_value = text
        return True

    return extract


def _convert(action: Action) -> Edit:
    key, convert = action.key, _CONVERSIONS[action.converted_type]

    def edit(attributes: Any, _: Budget) -> bool:
        pair = find(attributes, key)
        if pair is None:
            return False
        old = value_of(pair.value)
        new = convert(old)
        if new is None or (type(new) is type(old) and new == old):
            return False
        set_value(pair.value, new)
        return True

    return edit


def to_int(value: Any) -> int | None:
    """A whole number of 64 bits, or None."""
    match value:
        case bool():
            return int(value)
        case int():
            return value
        case float() if INT_MIN <= value < -INT_MIN:
            return int(value)
        case str() if WHOLE.fullmatch(value) and INT_MIN <= int(value) <= INT_MAX:
            return int(value)
    return None


def to_double(value: Any) -> float | None:
    """A fraction, or None."""
    match value:
        case bool() | int() | float():
            return float(value)
        case str() if len(value) <= LONGEST_NUMBER and FRACTION.fullmatch(value):
            return float(value)
    return None


_EDITS: Final[dict[str, Callable[[Action], Edit]]] = {
    "insert": _write,
    "update": _write,
    "upsert": _write,
    "delete": _delete,
    "hash": _hash,
    "extract": _extract,
    "convert": _convert,
}
_CONVERSIONS: Final[dict[str, Callable[[Any], Any]]] = {
    "int": to_int,
    "double": to_double,
    "string": text_of,
}
