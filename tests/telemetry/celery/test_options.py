"""`instrument()`: what it refuses, before it changes anything."""

import pytest

from telemetry.errors import ConfigError
from telemetry.instrumentation import celery


def test_all_problems_are_named_at_once():
    """An unknown mode and an unknown id are one ConfigError that names both, with what is known."""
    with pytest.raises(ConfigError) as raised:
        celery.instrument(
            mode={"*": "links", "shop.add": "child"}, kwargs_map={"mail": "user.email"}
        )
    text = str(raised.value)
    assert "mode 'links' of * does not exist; use one of auto, child, link" in text
    assert "kwargs_map maps 'mail' to 'user.email', which is no id" in text
