"""
For `telemetry doctor`: do the installed packages fit together, and what runs slower than it could.

Each OpenTelemetry package names the releases that it works with. An `--pre`, a `--no-deps` or a lock
file that was written by hand can leave a mixture behind that pip has warned about once, and that
nobody sees afterwards. What does not fit is a problem, because the next request may fail; what is
slower (records on the SDK path, no native core) is a note with its fix.
"""

import importlib
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distributions
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from telemetry import _native

OURS: Final = "otelier"
PREFIX: Final = "opentelemetry-"


def installed() -> dict[str, str]:
    """Every OpenTelemetry distribution of this environment -> its version, sorted by name."""
    return {name: each.version for name, each in sorted(_distributions().items())}


def mismatches() -> list[str]:
    """One line for each package that needs another release than the one beside it, and the fix."""
    have = {canonicalize_name(each.name): each.version for each in distributions() if each.name}
    found = []
    odd = set()
    for name, each in sorted(_distributions().items()):
        for requirement in _requirements(each):
            other = canonicalize_name(requirement.name)
            if not (other.startswith(PREFIX) or name == OURS):
                continue
            version = have.get(other)
            if version is not None and _fits(requirement, version):
                continue
            state = f"{version} is installed" if version else "it is not installed"
            found.append(f"{name} {each.version} needs {other}{requirement.specifier}, {state}")
            odd |= {name, other}
    if not found:
        return []
    fix = f"pip install --upgrade {' '.join(sorted(odd | {OURS}))}"
    return [f"{line}; {fix}" for line in found]


def _distributions() -> dict[str, Distribution]:
    """The first of each name on the path is the one that is imported."""
    found: dict[str, Distribution] = {}
    for each in distributions():
        name = canonicalize_name(each.name or "")
        if name == OURS or name.startswith(PREFIX):
            found.setdefault(name, each)
    return found


def _requirements(each: Distribution) -> Iterator[Requirement]:
    """What it needs here, without what only its extras need."""
    for text in each.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _fits(requirement: Requirement, version: str) -> bool:
    try:
        return requirement.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return False


def core() -> tuple[str, str]:
    """`native` or `Python`, and why it is not native, with the fix."""
    if _native.core is not None:
        return "native", ""
    if os.environ.get("OTELIER_PURE_PYTHON") == "1":
        return "Python", "OTELIER_PURE_PYTHON=1; unset it"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "Python", "a free-threaded Python loads no module of the stable ABI"
    try:
        importlib.import_module("telemetry._core")
    except ImportError as error:
        reason = str(error)
    else:
        reason = "it was not loaded"
    return "Python", (
        f"{reason}; install a C compiler and Python's headers (Debian: gcc libc6-dev python3-dev),"
        " then: pip install --force-reinstall --no-cache-dir --no-deps otelier"
    )


def fast_path() -> dict[str, Any]:
    """
    What is on the fast path in this process, and why not more; nothing before `configure()`.

    The gate is asked only if it was imported: asking must not load private names of the SDK.
    """
    gate = sys.modules.get("telemetry._fast.gate")
    if gate is None:
        return {}
    status = gate.status()
    return {"signals": list(status.signals), "reason": status.reason, "sdk": status.sdk}


def notes(processes: list[dict[str, Any]], wanted: str) -> list[str]:
    """
    What is slower than it could be, or is set up by another package, each once and with the fix.

    Args:
        processes: the snapshots of `_cli.snapshot`.
        wanted: the setting `fast_path`.
    """
    found: dict[str, None] = {}
    runs, why = core()
    if runs != "native":
        found[f"the slower pure-Python core runs: {why}"] = None
    for process in processes:
        fast = process.get("fast_path") or {}
        if fast.get("reason"):
            found[_off_the_fast_path(fast, wanted)] = None
        for signal, provider in process.get("providers", {}).items():
            if not provider.startswith(("telemetry.", "opentelemetry.")):
                joined = "ours is joined to it" if process.get("joined") else "ours is not used"
                found[
                    f"{signal}: {provider} is the provider, set by another package before us;"
                    f" {joined}; start telemetry first to be its owner"
                ] = None
    return list(found)


def _off_the_fast_path(fast: Mapping[str, Any], wanted: str) -> str:
    reason = fast["reason"]
    if wanted == "off":
        return f"all records take the SDK path ({reason}); unset it for the fast path"
    text = f"records take the SDK path, which works and costs more: {reason}"
    if "release" in reason:
        known = reason.rpartition("(")[2].rstrip(")").split(", ")[-1]
        text += f'; pip install "opentelemetry-sdk=={known}" for the fast path'
    return text
