"""
`--config` and `--set`, as every verb that reads the configuration takes them.

One pair of options, one default and one loader, so that `run`, `validate`, `trace` and the others
never disagree about which configuration is meant.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

from collector.cli import builtin
from collector.config import Config, load, read_source
from collector.http.exposure import ALLOW_UNAUTHENTICATED

DEFAULT: Final = builtin.NAME

_Function = TypeVar("_Function", bound=Callable[..., Any])


def config_options(command: _Function) -> _Function:
    """Add `--config`, `--set` (parameters `config`, `sets`) and `--allow-unauthenticated`."""
    add_set = click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set one key over all files: --set exporters.debug.verbosity=detailed. Repeatable.",
    )
    add_config = click.option(
        "--config",
        "config",
        multiple=True,
        metavar="URI",
        help=(
            "A file, or file:, env: or yaml: and what to read. Repeatable; later ones win. "
            f"Default: {DEFAULT} in the working folder, else the one that comes with the package."
        ),
    )
    allow = click.option(
        "--allow-unauthenticated",
        is_flag=True,
        expose_value=False,
        callback=_allow_unauthenticated,
        help="The network is your own: listen beyond this machine without a token "
        f"({ALLOW_UNAUTHENTICATED}=1 says the same).",
    )
    return add_config(add_set(allow(command)))


def _allow_unauthenticated(_context: click.Context, _parameter: click.Parameter, yes: bool) -> None:
    """Said once for the process: the listeners ask the variable, also after a reload."""
    if yes:
        os.environ[ALLOW_UNAUTHENTICATED] = "1"


def load_config(
    config: Sequence[str],
    sets: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    *,
    validate: bool = True,
) -> Config:
    """
    The configuration that the options name.

    Raises:
        InvalidConfig: with every problem; its text is what `Error: ` is followed by.
    """
    uris, environ = builtin.sources(config, environ)
    return load(uris, sets, environ, validate=validate)


def load_source(config: Sequence[str], sets: Sequence[str] = ()) -> dict[str, Any]:
    """
    The mapping that the options name, merged and expanded, not decoded.

    Raises:
        InvalidConfig: a source cannot be read or expanded.
    """
    uris, environ = builtin.sources(config, os.environ)
    return read_source(uris, sets, environ)


def show_warnings(config: Config) -> None:
    """Warnings on stderr, so that the answer on stdout stays clean."""
    for warning in config.warnings:
        click.echo(f"Warning: {warning}", err=True)
