"""The public names: what a user may import, and nothing by accident."""

import inspect
import tomllib
from pathlib import Path

import telemetry


def test_all_is_sorted_and_complete():
    """`__all__` names every public attribute of telemetry, and each exists and says what it is."""
    public = {
        name
        for name, value in vars(telemetry).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    listed = [name for name in telemetry.__all__ if not name.startswith("_")]
    assert listed == sorted(listed)
    assert set(listed) == public


def test_every_public_name_is_documented():
    """Each public function and class of telemetry has a docstring."""
    bare = [
        name
        for name in telemetry.__all__
        if callable(getattr(telemetry, name)) and not inspect.getdoc(getattr(telemetry, name))
    ]
    assert bare == []


def test_the_version_is_that_of_the_distribution():
    """It is written down twice, so that importing does not look it up."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert telemetry.__version__ == project["version"]
