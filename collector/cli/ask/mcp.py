"""`collector mcp`: the questions of the command line as tools for an agent, over stdio."""

import importlib.util

import click

from collector.cli.ask.source import Asking, source_options

HELP = """
Answer an agent's questions over stdio, by the Model Context Protocol.

It offers find, trace, logs, errors, tasks, slow, services and operations. They only
read, and their answers are bounded. It asks the collector at --endpoint; when none
runs there, it reads the store of --config.

\b
For an agent that reads a list of servers:
  {"mcpServers": {"otelier": {"command": "collector", "args": ["mcp"]}}}

Install it with: pip install 'otelier[mcp]'
"""


@click.command(help=HELP, short_help="Answer an agent's questions (Model Context Protocol).")
@source_options
def mcp(*, asking: Asking) -> None:
    """Serve until stdin ends."""
    if importlib.util.find_spec("mcp") is None:
        raise click.ClickException("the mcp package is missing: pip install 'otelier[mcp]'")
    from collector.cli.ask.mcp_tools import server  # noqa: PLC0415 - needs the extra

    server(asking).run("stdio")
