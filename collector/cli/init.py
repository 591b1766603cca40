"""
`collector init`: write the built-in configuration to a file, to be edited.

It never overwrites: a configuration is work, and the name is the one that `collector` reads.
"""

from pathlib import Path

import click

from collector.cli import builtin


@click.command()
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(builtin.NAME),
    show_default=True,
    help="The file to write.",
)
def init(output: Path) -> int:
    """
    Write the configuration that runs without one, to be edited.

    The data folder in it is the one that is in use without the file. Exit code 1: the file exists
    already, or cannot be written.
    """
    text = builtin.text_to_edit()
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        click.echo(
            f"Error: {output} exists already and is left as it is; remove it, or name another file:"
            f" collector init --output other.yaml",
            err=True,
        )
        return 1
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        click.echo(f"Error: cannot write {output}: {reason}", err=True)
        return 1
    run = "collector" if output == Path(builtin.NAME) else f"collector --config {output}"
    click.echo(f"{output} is written; data goes to {builtin.data_folder()}.")
    click.echo(
        f"Check a change with `{run.replace('collector', 'collector validate', 1)}`, run it with `{run}`."
    )
    return 0
