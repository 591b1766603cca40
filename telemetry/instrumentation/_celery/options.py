"""
What the Celery layer was asked to do, and the one guard around everything that it does.

Options are those of the last `instrument()` call, else those of the environment. Forked children
inherit them.
"""

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, ParamSpec

from telemetry import _diagnostics, _values
from telemetry import attributes as names
from telemetry._config import kinds
from telemetry.errors import ConfigError

P = ParamSpec("P")

MODE_VARIABLE: Final = "TELEMETRY_CELERY_MODE"
RESOURCES_VARIABLE: Final = "TELEMETRY_CELERY_RESOURCES"
MODES: Final = ("auto", "child", "link")
TASK_MODE: Final = "telemetry_mode"
"""The option of a task that overrides the mode: `@app.task(telemetry_mode="link")`."""
TRAVELLING: Final = {
    names.CONTEXT[name]
    for name in (
        names.CORRELATION_ID,
        names.REQUEST_ID,
        names.TENANT_ID,
        names.ORGANIZATION_ID,
        names.USER_ID,
        names.CONVERSATION_ID,
        names.SESSION_ID,
        names.ORDER_ID,
        names.BATCH_RUN_ID,
    )
}
"""The ids that go with a message, by keyword: ids only, never the whole scope."""
KWARGS: Final = {keyword: keyword for keyword in sorted(TRAVELLING)}
"""By default an argument `tenant_id` of a task is the tenant, and so on for each id."""


@dataclass(frozen=True, slots=True)
class Options:
    """The effective options of this process."""

    mode: str | Mapping[str, str] = "auto"
    kwargs_map: Mapping[str, str] = field(default_factory=lambda: dict(KWARGS))
    resources: bool = False


_options = Options()


def current() -> Options:
    """The options in force."""
    return _options


def use(
    *,
    mode: str | Mapping[str, str],
    kwargs_map: Mapping[str, str] | None,
    resources: bool,
) -> None:
    """
    Set the options.

    Raises:
        ConfigError: a mode, or an id of `kwargs_map`, does not exist; all problems are listed.
    """
    global _options  # noqa: PLW0603 - one process has one set of options
    modes = {"mode": mode} if isinstance(mode, str) else dict(mode)
    problems = [
        f"mode {value!r} of {name} does not exist; use one of {', '.join(MODES)}"
        for name, value in modes.items()
        if value not in MODES
    ]
    keywords: dict[str, str] = {}
    for argument, named in (KWARGS if kwargs_map is None else kwargs_map).items():
        keyword = names.CONTEXT.get(named, named)
        if keyword in TRAVELLING:
            keywords[argument] = keyword
        else:
            known = ", ".join(sorted(TRAVELLING))
            problems.append(
                f"kwargs_map maps {argument!r} to {named!r}, which is no id; use {known}"
            )
    if problems:
        raise ConfigError(problems)
    _options = Options(mode=mode, kwargs_map=keywords, resources=resources)


def use_environment() -> None:
    """The options under the wrapper; a bad value is said, and its default used."""
    given = {name: os.environ.get(name, "").strip() for name in (MODE_VARIABLE, RESOURCES_VARIABLE)}
    mode, resources = given[MODE_VARIABLE].lower() or "auto", False
    if mode not in MODES:
        text = f"{MODE_VARIABLE}={mode!r} cannot be used; give one of {', '.join(MODES)}"
        _diagnostics.say("celery options", text, level="error", always=True)
        mode = "auto"
    try:
        resources = bool(given[RESOURCES_VARIABLE]) and kinds.FLAG.read(given[RESOURCES_VARIABLE])
    except (TypeError, ValueError):
        text = f"{RESOURCES_VARIABLE} cannot be used; give {kinds.FLAG.words}"
        _diagnostics.say("celery options", text, level="error", always=True)
    use(mode=mode, kwargs_map=None, resources=resources)


def mode_of(task: Any) -> str:
    """The mode of a task: its own option, then the table by name, then that of all."""
    own = getattr(task, TASK_MODE, None)
    if own in MODES:
        return str(own)
    mode = _options.mode
    return mode if isinstance(mode, str) else mode.get(task.name, mode.get("*", "auto"))


def guarded(site: str) -> Callable[[Callable[P, Any]], Callable[P, None]]:
    """A receiver whose failure is said and goes no further: Celery would log each with a stack."""

    def decorate(function: Callable[P, Any]) -> Callable[P, None]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                function(*args, **kwargs)
            except Exception as error:
                text = f"celery {site} was not recorded: {type(error).__name__}: "
                _diagnostics.say(f"celery {site}", text + _values.text(error), level="error")

        return call

    return decorate
