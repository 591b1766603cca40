"""
The `telemetry` program: `doctor` looks at this environment, `progress` at batches that run.

Exit codes: 0 all well, 1 something is or would go wrong, 2 wrong usage. What the commands say is
made in `_doctor` and `_progress_cli`.
"""

import json
import sys

import click

from telemetry import __version__
from telemetry._cli import doctor as _doctor
from telemetry._cli import progress


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="telemetry")
def main() -> None:
    """Look at the telemetry of this environment."""


@main.command(context_settings={"ignore_unknown_options": False})
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a page.")
@click.option("--all", "everything", is_flag=True, help="Show settings with their defaults, too.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def doctor(*, command: tuple[str, ...], as_json: bool, everything: bool) -> None:
    """
    Say what telemetry would do here: who sets it up, with which settings, and does it arrive.

    With a COMMAND after `--`, that program is run under the wrapper and looked at; else one that
    does nothing.
    """
    findings = _doctor.examine(command)
    if as_json:
        click.echo(json.dumps(findings, indent=2))
    else:
        click.echo(_doctor.page(findings, everything=everything))
    sys.exit(1 if findings["problems"] else 0)


main.add_command(progress.progress)
