"""
The compiled module of `telemetry`, if there is one.

The only file that knows whether it is there: `core` is the module or None. `native/telemetry` holds
its source, the build compiles it where it finds a compiler, and OTELIER_PURE_PYTHON=1 keeps to
Python. Each function of it has an equal in Python: see `_attribute_loops` and
`_export/otlp_encoder`.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any, Final


def load() -> Any:
    """The compiled module, or None."""
    if os.environ.get("OTELIER_PURE_PYTHON") == "1":
        return None
    try:
        return importlib.import_module("telemetry._core")
    except ImportError:
        return None


core: Final = load()
process_id: Final[Callable[[], int]] = getattr(core, "process_id", os.getpid)
"""`os.getpid`; natively without the system call, and right in every child, with or without fork hooks."""
