"""
The options of the middleware: argument > environment variable > default.

A bad value is said once on stderr and its default used. It is not raised: an ASGI application is
built when it serves its first request, where an exception would be an answer of 500 to all clients.

Routes are patterns over the path, as in routing tables: `/users/{id}` (one segment), `/static/*`
(all below), optionally with a method before: `GET /poll`.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from telemetry import _diagnostics
from telemetry._config import kinds
from telemetry.instrumentation._asgi import standard as variables

TRACE_HEADERS: Final = ("traceresponse", "server-timing", "both", "none")
_METHOD = re.compile(r"([A-Z]+|\*) +(?=/)")
_SEGMENT = re.compile(r"\\{[^/]*?\\}")

MIDDLEWARES: Final = 64
"""Sets of rules whose patterns are kept as one."""

Rule = tuple[str, re.Pattern[str], float]
"""Method (`*` for all), path, and how many of the matching requests to keep."""


def _route(text: str, rate: float = 0.0) -> Rule:
    found = _METHOD.match(text)
    method, path = (found[1], text[found.end() :]) if found else ("*", text)
    if not path.startswith("/") or any(character.isspace() for character in path):
        raise ValueError
    below = path.endswith("*")
    pattern = _SEGMENT.sub("[^/]+", re.escape(path.rstrip("*").rstrip("/")))
    tail = "/.*" if below and path.endswith("/*") else ".*" if below else "/?"
    return method, re.compile(pattern + tail, re.DOTALL), rate


def _routes(value: Any) -> tuple[Rule, ...]:
    return tuple(_route(part) for part in kinds.WORDS.read(value))


def _rates(value: Any) -> tuple[Rule, ...]:
    """`GET /poll=0.01,/feed/*=0.1`, or a mapping."""
    pairs: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        for part in kinds.WORDS.read(value):
            route, _, rate = part.rpartition("=")
            pairs.append((route.strip(), rate))
    rules = []
    for route, rate in pairs:
        number = float(rate)
        if not 0 <= number <= 1 or isinstance(rate, bool):
            raise ValueError
        rules.append(_route(route, number))
    return tuple(rules)


def _choice(value: Any) -> str:
    word = str(value).strip().lower()
    if word not in TRACE_HEADERS:
        raise ValueError
    return word


ROUTES: Final = kinds.Kind(_routes, "routes such as /health or GET /static/*, separated by commas")
RATES: Final = kinds.Kind(_rates, "routes with a rate from 0 to 1, such as GET /poll=0.01")
TRACE_HEADER: Final = kinds.Kind(_choice, "one of " + ", ".join(TRACE_HEADERS))


def _option(default: Any, kind: kinds.Kind, env: str, doc: str) -> Any:
    return field(default=default, metadata={"kind": kind, "env": env, "doc": doc})


SILENT_ROUTES: Final = ("/health", "/healthz", "/livez", "/readyz", "/metrics")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The effective options of a middleware."""

    exclude: tuple[Rule, ...] = _option(
        _routes(SILENT_ROUTES),
        ROUTES,
        "TELEMETRY_HTTP_EXCLUDE",
        "Silent routes: their requests leave no spans and no log records.",
    )
    sample: tuple[Rule, ...] = _option(
        (),
        RATES,
        "TELEMETRY_HTTP_SAMPLE",
        "Routes of which only a part is kept, with the part: errors and slow requests always are. "
        "The first rule that matches counts.",
    )
    slow: float = _option(
        1.0,
        kinds.SECONDS,
        "TELEMETRY_HTTP_SLOW",
        "Seconds from which on a request is slow, and kept whatever the sampling rules say.",
    )
    access_log: bool = _option(
        True,
        kinds.FLAG,
        "TELEMETRY_HTTP_ACCESS_LOG",
        "One log record per finished request, by logger `telemetry.access`.",
    )
    trust_baggage: bool = _option(
        False,
        kinds.FLAG,
        "TELEMETRY_HTTP_TRUST_BAGGAGE",
        "Take the ids of TELEMETRY_BAGGAGE_KEYS from the `baggage` header of requests. "
        "Only where all clients are your own services.",
    )
    trace_header: str = _option(
        "traceresponse",
        TRACE_HEADER,
        "TELEMETRY_HTTP_TRACE_HEADER",
        "How the trace id is shown to the client: `traceresponse`, `server-timing` (which scripts "
        "of a browser can read), `both` or `none`.",
    )
    operation_spans: bool = _option(
        False,
        kinds.FLAG,
        "TELEMETRY_FASTAPI_OPERATION_SPANS",
        "FastAPI's own child spans (`fastapi.dependencies`, `.endpoint`, `.serialization`, "
        "`.background_task`), for applications that do not choose themselves. Needs the wrapper.",
    )

    standard: variables.Standard = field(default_factory=variables.Standard)
    """What OpenTelemetry's own variables say; no option of its own."""


TABLE: Final[Mapping[str, Mapping[str, Any]]] = {
    item.name: item.metadata for item in fields(Options) if item.metadata
}
"""Name -> {kind, env, doc}, in the order of the docs."""


def read(
    arguments: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Options, list[str]]:
    """The effective options, and every problem found on the way."""
    environ = os.environ if environ is None else environ
    given = dict(arguments or {})
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, table in TABLE.items():
        variable = table["env"]
        candidates = ((variable, environ.get(variable, "").strip()), (name, given.pop(name, None)))
        for where, value in candidates:
            if value is None or (where == variable and not value):
                continue
            try:
                values[name] = table["kind"].read(value)
            except Exception:
                fix = table["kind"].words
                shown = _shown(value)
                problems.append(f"{where}={shown} cannot be used; give {fix}, or leave it out")
    problems.extend(f"there is no option {name!r}; there are: {', '.join(TABLE)}" for name in given)
    return Options(**values), problems


def _shown(value: object) -> str:
    try:
        return repr(value)[:100]
    except Exception:
        return f"<{type(value).__name__}>"


def take(arguments: Mapping[str, Any] | None = None, *, framework: str = "FASTAPI") -> Options:
    """
    The effective options; problems are said on stderr.

    Args:
        arguments: given by the application.
        framework: whose standard variables count: FASTAPI, FLASK, DJANGO.
    """
    options, problems = read(arguments)
    options = replace(options, standard=variables.read(framework))
    for problem in problems:
        _diagnostics.say("asgi options", problem, level="error", always=True)
    return options


def rule_for(rules: Sequence[Rule], method: str, paths: Sequence[str]) -> Rule | None:
    """The first rule that matches a request, by one of the forms of its path."""
    if not any(map(_matcher(rules), paths)):
        return None
    for rule in rules:
        if rule[0] in ("*", method):
            for path in paths:
                if rule[1].fullmatch(path):
                    return rule
    return None


_matchers: dict[int, tuple[Sequence[Rule], Callable[[str], object]]] = {}


def _matcher(rules: Sequence[Rule]) -> Callable[[str], object]:
    """All patterns of some rules as one, which most requests do not match."""
    known = _matchers.get(id(rules))
    if known is None or known[0] is not rules:
        if len(_matchers) >= MIDDLEWARES:
            _matchers.clear()
        whole = "|".join(f"(?:{rule[1].pattern})" for rule in rules) or "(?!)"
        known = _matchers[id(rules)] = (rules, re.compile(whole, re.DOTALL).fullmatch)
    return known[1]
