"""
Do something when a module has been imported, without importing it.

Under `opentelemetry-instrument` every Python process passes through the distro, and Celery takes a
fifth of a second to import: a web process that never publishes a task must not pay for it. So the
receivers are connected when Celery is imported by other code. A finder on `sys.meta_path` lets
the real loader do its work, calls back, and takes itself off again.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from telemetry import _diagnostics, _values

Callback = Callable[[Any], None]
"""Gets the imported module."""


def when_imported(name: str, callback: Callback) -> None:
    """Call back with the module `name`: now if it is there, else when it has been imported."""
    module = sys.modules.get(name)
    if module is not None:
        _call(callback, module)
    else:
        sys.meta_path.insert(0, _Finder(name, callback))


def forget() -> None:
    """Take back what has not happened yet."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]


def _call(callback: Callback, module: ModuleType) -> None:
    try:
        callback(module)
    except Exception as error:
        text = f"{module.__name__} is not instrumented: {_values.text(error)}"
        _diagnostics.say(f"import {module.__name__}", text, level="error")


class _Finder(MetaPathFinder):
    """Notices one import."""

    def __init__(self, name: str, callback: Callback) -> None:
        self._name = name
        self._callback = callback

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders say, with a loader that calls back."""
        if fullname != self._name:
            return None
        for finder in sys.meta_path:
            if finder is self or (isinstance(finder, _Finder) and finder._name == fullname):  # noqa: SLF001 - our own kind
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self, self._callback)
                return spec
        return None


class _Loader(Loader):
    """Loads as the real loader does, then calls back."""

    def __init__(self, loader: Loader, finder: _Finder, callback: Callback) -> None:
        self._loader = loader
        self._finder = finder
        self._callback = callback

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the real loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the real loader does; afterwards the module knows only that one."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        self._loader.exec_module(module)
        _call(self._callback, module)
