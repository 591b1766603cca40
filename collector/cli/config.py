"""
`collector validate`, `components` and `print-config`: what would run, without running it.

The first opens no port and starts nothing; the second is the reference of every key; the third
shows what merging and `${...}` made of the files.
"""

import importlib.metadata
import json
from typing import Any

import click

from collector import components as registry
from collector.cli.options import config_options, load_config, load_source, show_warnings
from collector.cli.schema import schema as configuration_schema
from collector.config import InvalidConfig, describe, dump_yaml, redacted
from collector.config.show import escaped


@click.command()
@config_options
def validate(config: tuple[str, ...], sets: tuple[str, ...]) -> int:
    """
    Check the configuration without starting anything.

    Silent and 0 when it is valid; else every problem is listed and the exit code is 1.
    """
    try:
        show_warnings(load_config(config, sets))
    except InvalidConfig as error:
        click.echo(f"Error: {error.report()}", err=True)
        return 1
    return 0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of YAML.")
def components(as_json: bool) -> int:
    """List every component with its keys, types, defaults and help."""
    found: dict[str, Any] = {
        "buildinfo": {
            "command": "collector",
            "description": "otelier, an OpenTelemetry collector with queries by id",
            "version": importlib.metadata.version("otelier"),
        }
    }
    for section, kinds in registry.KINDS.items():
        found[section] = [_component(section, name) for name in sorted(kinds)]
    found["providers"] = [{"scheme": scheme} for scheme in ("env", "file", "yaml")]
    click.echo(json.dumps(found, indent=2) if as_json else dump_yaml(found).rstrip("\n"))
    return 0


@click.command()
def schema() -> int:
    """
    Print the JSON Schema of the YAML, for editors.

    `collector schema > .otelier.schema.json`, and as the first line of the YAML:
    `# yaml-language-server: $schema=.otelier.schema.json`
    """
    click.echo(json.dumps(configuration_schema(), indent=2, ensure_ascii=False))
    return 0


def _component(section: str, name: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "module": registry.KINDS[section][name]}
    try:
        cls = registry.resolve(section, name)
    except ImportError as error:
        return {**entry, "unavailable": str(error)}
    entry["description"] = (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    entry["keys"] = describe(cls.Config)
    return entry


@click.command("print-config")
@config_options
@click.option(
    "--mode",
    type=click.Choice(["redacted", "unredacted"]),
    default="redacted",
    show_default=True,
    help="redacted: what is in effect, with all defaults and masked secrets. "
    "unredacted: what was written, merged and expanded, secrets readable.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="How to print it.",
)
@click.option(
    "--validate/--no-validate",
    "check",
    default=True,
    show_default=True,
    help="Fail when the configuration is not valid.",
)
def print_config(
    config: tuple[str, ...], sets: tuple[str, ...], mode: str, form: str, check: bool
) -> int:
    """Print the configuration after merging and expansion."""
    if mode == "unredacted" and not check:
        printed = load_source(config, sets)
    else:
        loaded = load_config(config, sets, validate=check)
        show_warnings(loaded)
        printed = redacted(loaded) if mode == "redacted" else loaded.source
    if form == "json":
        click.echo(json.dumps(printed, indent=2, ensure_ascii=False))
    else:
        click.echo(dump_yaml(escaped(printed)).rstrip("\n"))
    return 0
