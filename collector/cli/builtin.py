"""
The configuration that comes with the package, for a folder without an otel-collector.yaml.

`pip install` is then enough: `collector` runs in any folder. It is the file of the repository, put
into the wheel, so there is one of it. Its data does not land in the working folder by chance but in
one place for each user, $XDG_STATE_HOME/otelier (~/.local/state/otelier); TELEMETRY_DATA names
another. `collector init` writes the file for people who want to edit it, with that folder in it, so
that what was stored before is still found.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from collector.errors import CollectorError

NAME: Final = "otel-collector.yaml"
"""The file in the working folder that goes first."""
VARIABLE: Final = "TELEMETRY_DATA"
_PACKAGE: Final = Path(__file__).resolve().parent.parent


def file() -> Path:
    """The configuration in the package; in a clone, the one at its top."""
    packed = _PACKAGE / NAME
    return packed if packed.is_file() else _PACKAGE.parent / NAME


def applies(config: Sequence[str]) -> bool:
    """Whether neither `--config` nor the working folder has a configuration."""
    return not config and not Path(NAME).is_file()


def sources(
    config: Sequence[str], environ: Mapping[str, str]
) -> tuple[Sequence[str], Mapping[str, str]]:
    """
    What to read, and the variables to read it with.

    Args:
        config: what `--config` named.
        environ: the variables of the process.

    Raises:
        CollectorError: the built-in configuration has nowhere to keep its data.
    """
    if not applies(config):
        return config or (NAME,), environ
    return (f"file:{file()}",), {**environ, VARIABLE: str(data_folder(environ))}


def data_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """
    Where the built-in configuration keeps its data.

    Raises:
        CollectorError: this user has no home folder; the message names the fix.
    """
    if given := environ.get(VARIABLE):
        return Path(given)
    state = Path(environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # the specification: a relative one counts as not set
        try:
            state = Path.home() / ".local" / "state"
        except RuntimeError:
            raise CollectorError(
                f"this user has no home folder to keep data in; set {VARIABLE}=/path/of/a/folder"
            ) from None
    return state / "otelier"


def make_data_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """
    The data folder, made when it is not there: for this user alone.

    Raises:
        CollectorError: it cannot be made or written; the message names the fix.
    """
    folder = data_folder(environ)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CollectorError(
            f"cannot make the data folder {folder}: {(error.strerror or str(error)).lower()};"
            f" set {VARIABLE}=/path/of/a/folder"
        ) from error
    return folder


def has_data() -> bool:
    """Whether an earlier run of the built-in configuration has left a store of this user."""
    try:
        return (data_folder() / "telemetry.db").is_file()
    except (CollectorError, OSError):
        return False


def text_to_edit(environ: Mapping[str, str] = os.environ) -> str:
    """The configuration as `collector init` writes it: with the data folder that is in use now."""
    folder = data_folder(environ)
    return (
        file().read_text().replace(f"${{env:{VARIABLE}:-data}}", f"${{env:{VARIABLE}:-{folder}}}")
    )
