"""
What may leave the process: what people ask for, and what follows from it for each name.

A `Redaction` says what people want; `Policy` is that, compiled, with what is known about names;
`redactor.Redactor` applies a policy and counts. Two kinds of rules: a name decides about its whole
value (`password`, own keys), a shape is looked for in every text (tokens, addresses, own patterns).
Each rule has a mode: mask, shorten, hash or drop.

It is cheap because little is looked at twice: a name is decided once, and short texts that were
found clean are remembered, both in tables that cannot grow.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from telemetry import attributes
from telemetry._redaction import key_names
from telemetry._redaction.key_names import IDS, IN_QUERIES, NUMBERS_TOO
from telemetry.attributes import CONTEXT, EXCEPTION_STACKTRACE, LOG_UID, LOOKUP

MASK: Final = "[REDACTED]"
LEVELS: Final = ("on", "off", "strict")
MODES: Final = ("mask", "shorten", "hash", "drop")
RULES: Final = {
    "secret": "mask",
    "private_key": "mask",
    "auth_header": "mask",
    "url_credentials": "mask",
    "jwt": "mask",
    "api_token": "mask",
    "card": "mask",
    "wallet": "shorten",
    "email": "shorten",
    "strict": "mask",
}
"""The rules that are always there, with their modes."""


NAMES: Final = 4096
CLEAN_TEXT: Final = 256

_EXEMPT: Final = frozenset(
    (
        *LOOKUP,
        *(name for name, key in CONTEXT.items() if key in LOOKUP),
        *(
            "trace_id",
            "span_id",
            "parent_id",
            "trace.id",
            "span.id",
            LOG_UID,
            "celery.task.root_id",
        ),
        *("celery.task.parent_id", "celery.task.group_id", "celery.worker.hostname", "host.name"),
        *("messaging.message.id", "service.instance.id", "audit.stream", "code.function.name"),
        *("exception.type", "error.type", "service.name", "telemetry.distro.name"),
    )
)
"""Names whose values are made by programs to be looked up by: never touched."""
_QUERIES: Final = ("url.query", "http.query")

SCAN, SKIP, ID, QUERY, RULE = range(5)
"""What a name decides: look for shapes, leave it, an id, the query of a URL, a rule for the name."""

_KNOWN: Final = frozenset(
    name
    for name in vars(attributes).values()
    if isinstance(name, str)
    and "." in name
    and not name.startswith(("gen_ai.input", "gen_ai.output"))
) - {attributes.EXCEPTION_MESSAGE, "gen_ai.system_instructions", attributes.TRACK_GIVEN}
_SPACES: Final = (
    *("http.request.method", "http.response.status", "http.route", "http.method", "http.scheme"),
    *(
        "http.status_code",
        "http.flavor",
        "url.scheme",
        "url.path",
        "server.",
        "network.",
        "thread.",
    ),
    *("messaging.", "service.", "telemetry.", "process.pid", "process.runtime.", "process.exit."),
    *("process.executable.name", "host.arch", "os.", "container.", "k8s.", "cloud.", "deployment."),
    *("rpc.", "db.system", "db.operation", "db.namespace", "db.collection", "user_agent."),
    *("feature_flag.", "otel.", "log.", "code.", "error.type", "exception.type", "risk.score."),
)
"""Names and beginnings of names whose texts are not masked by `strict`."""


def _no_modes() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Redaction:
    r"""
    What `configure(redaction=...)` takes; the variables TELEMETRY_REDACTION_* add to it.

    Example:
        telemetry.configure(
            redaction=telemetry.Redaction(
                keys={"customer_name": "hash", "iban": "mask"},
                patterns={"customer_no": r"\bCUST-[0-9]{6}\b"},
                modes={"email": "hash"},
            )
        )

    Args:
        level: `on`, `off`, or `strict`: texts under names that are not known are masked as well.
        keys: names whose values are secret, with a mode each if not `mask`.
        allow_keys: names whose values are left as they are.
        patterns: name of the rule -> regular expression; those that can explode are refused.
        modes: name of a rule -> mask, shorten, hash or drop.
        rules: functions from text to text, for what no pattern can say; run last.
    """

    level: str = "on"
    keys: Mapping[str, str] | Sequence[str] = ()
    allow_keys: Sequence[str] = ()
    patterns: Mapping[str, str] = field(default_factory=_no_modes)
    modes: Mapping[str, str] = field(default_factory=_no_modes)
    rules: Sequence[Callable[[str], str]] = ()


@dataclass(frozen=True, slots=True)
class Key:
    """What a name decides."""

    action: int
    shown: str | None = None
    """The name as it may be seen, where that differs."""
    name: str = ""
    word: str = ""
    mode: str = "mask"
    numbers: bool = True


class Policy:
    """
    A `Redaction`, compiled.

    Args:
        redaction: checked already (`validate.problems`).
    """

    def __init__(self, redaction: Redaction) -> None:
        from telemetry._redaction import (  # noqa: PLC0415 - 10 ms of patterns
            key_value_pairs,
            token_shapes,
        )

        self.level = redaction.level
        self.modes = {
            **RULES,
            **dict.fromkeys(redaction.patterns, "mask"),
            **redaction.modes,
        }
        given = redaction.keys
        own = dict(given) if isinstance(given, Mapping) else dict.fromkeys(given, "mask")
        self._own = {key_names.compact(key): (key, mode) for key, mode in own.items()}
        self._own_names = frozenset(self._own)
        self._allowed = frozenset(key_names.compact(key) for key in redaction.allow_keys)
        self.patterns = [(name, re.compile(text)) for name, text in redaction.patterns.items()]
        self.rules = tuple(redaction.rules)
        self.has_own = bool(self.patterns or self.rules)
        self.needles = key_names.needles(own)
        self.endings = key_names.endings(self._own)
        self.find = token_shapes.find
        self.lowered = key_value_pairs.lowered
        self.mask_pairs = key_value_pairs.mask
        self.keys: dict[str, Key] = {}
        self.settled: dict[str, bool] = {}
        """Names that stay as they are: True where the value does too, False where texts are scanned."""
        self.clean: set[str] = set()

    def decide(self, name: str, scan: Callable[[str], str]) -> Key:
        """
        What a name decides; remembered.

        Args:
            name: of an attribute.
            scan: redacts the name itself, as a text.
        """
        shown = scan(name)
        found = self._decide(name, None if shown == name else shown or MASK)
        if len(self.keys) >= NAMES:
            self.keys.clear()
            self.settled.clear()
        if len(name) <= CLEAN_TEXT:
            self.keys[name] = found
            if found.shown is None and found.action in (SKIP, SCAN, ID):
                self.settled[name] = found.action == SKIP
        return found

    def _decide(self, name: str, shown: str | None) -> Key:
        if self._is_allowed(name):
            return Key(SKIP)
        rule = self.secret(name)
        if rule is not None:
            return Key(RULE, shown, rule.name, rule.word, rule.mode, rule.numbers)
        if name in _EXEMPT:
            return Key(SKIP)
        if self.level == "strict" and not (name in _KNOWN or name.startswith(_SPACES)):
            return Key(RULE, shown, "strict", "strict", self.modes["strict"], numbers=False)
        if self.level == "strict" and name == EXCEPTION_STACKTRACE:
            return Key(RULE, shown, "strict", "frames", self.modes["strict"], numbers=False)
        if name in _QUERIES:
            return Key(QUERY, shown)
        last = key_names.words(name)[-1:]
        return Key(ID if last and last[0] in IDS else SCAN, shown)

    def secret(self, name: str, in_query: bool = False) -> Key | None:
        """The rule for a name that says that its value is secret."""
        words = key_names.words(name)
        word = key_names.secret(words, self._own_names) if self._own else None
        if word is None and self._own and key_names.compact(name) in self._own_names:
            word = key_names.compact(name)
        if word is not None:
            given, mode = self._own[word]
            return Key(RULE, None, given, word, mode)
        word = key_names.secret(words)
        if word is None and in_query:
            word = key_names.secret(words, IN_QUERIES)
        if word is None or self._is_allowed(name):
            return None
        return Key(RULE, None, "secret", word, self.modes["secret"], word in NUMBERS_TOO)

    def _is_allowed(self, name: str) -> bool:
        return bool(self._allowed) and key_names.compact(name) in self._allowed

    def pair(self, name: str, in_query: bool) -> Key | None:
        """As `secret`, for the names in texts; remembered."""
        table = f"?{name}" if in_query else f"={name}"
        found = self.keys.get(table)
        if found is None:
            found = self.secret(name, in_query) or _NOTHING
            if len(self.keys) >= NAMES:
                self.keys.clear()
            self.keys[table] = found
        return None if found is _NOTHING else found


_NOTHING: Final = Key(SCAN)
