"""
The one switch that opens ports beyond this machine without a credential.

Inside a container every address is open, so public configurations listen on 0.0.0.0 and mean the network of
the container. The operator says so once, by a flag or a variable of the process. It is no key of the file: a
file that was copied must not open a port by itself (R8).
"""

import os
from typing import Final

ALLOW_UNAUTHENTICATED: Final = "TELEMETRY_ALLOW_UNAUTHENTICATED"


def unauthenticated_allowed() -> bool:
    """Whether the operator said that the network is its own; asked at each start and reload."""
    return os.environ.get(ALLOW_UNAUTHENTICATED, "").strip().lower() in ("1", "true", "yes", "on")
