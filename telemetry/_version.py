"""
Name and version of the distribution; pyproject.toml says the same (tests/test_public_api.py).

Asking the installed metadata instead would cost every `import telemetry` 5 ms.
"""

from typing import Final

NAME: Final = "otelier"
__version__: str = "0.1.0"
