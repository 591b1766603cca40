"""
The command line: one click group whose verbs are imported when they are called.

`collector` without a verb is `collector run`, so that a configuration written for the
OpenTelemetry Collector starts with the same words (`collector --config x.yaml`). Each verb is a
click command in a module of its own; starting one verb never pays for the imports of another.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Final

import click

from collector.errors import CollectorError

VERBS: Final = {
    "run": "collector.cli.run:run",
    "init": "collector.cli.init:init",
    "validate": "collector.cli.config:validate",
    "components": "collector.cli.config:components",
    "print-config": "collector.cli.config:print_config",
    "schema": "collector.cli.config:schema",
    "trace": "collector.cli.ask.trace:trace",
    "traces": "collector.cli.ask.lists:traces",
    "services": "collector.cli.ask.lists:services",
    "operations": "collector.cli.ask.lists:operations",
    "metrics": "collector.cli.ask.lists:metrics",
    "logs": "collector.cli.ask.logs:logs",
    "query": "collector.cli.ask.query:query",
    "tail": "collector.cli.ask.tail:tail",
    "errors": "collector.cli.ask.errors:errors",
    "slow": "collector.cli.ask.slow:slow",
    "tasks": "collector.cli.ask.tasks:tasks",
    "mcp": "collector.cli.ask.mcp:mcp",
    "migrate": "collector.cli.migrate:migrate",
    "queue": "collector.cli.queue:queue",
    "mongo": "collector.cli.mongo:mongo",
    "dead-letters": "collector.cli.dead_letters:dead_letters",
}


class Verbs(click.Group):
    """A group that imports a verb when it is named, and runs `run` when none is."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Every verb, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click
        """Import and return the verb's command."""
        target = VERBS.get(cmd_name)
        if target is None:
            return None
        module, _, name = target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words; no verb means `run`."""
        first = args[0] if args else ""
        if not args or (first.startswith("-") and first not in ("-h", "--help", "--version")):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="otelier", prog_name="collector")
def cli() -> None:
    """
    Receive OpenTelemetry data, keep it, and answer questions about it by one id.

    Without a command it runs the collector, with otel-collector.yaml of the working folder or, when
    there is none, with the configuration that comes with the package; `collector init` writes that.
    """


def main(arguments: Sequence[str]) -> int:
    """
    Run one command line.

    Args:
        arguments: the words behind the program's name.

    Returns:
        The exit code: 0 done, 1 failed or not found, 2 wrong usage, 130 interrupted.
    """
    try:
        result = cli.main(list(arguments), prog_name="collector", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CollectorError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    return result if isinstance(result, int) else 0
