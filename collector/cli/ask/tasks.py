"""`collector tasks`: what became of Celery tasks."""

from typing import Any

import click

from collector.cli.ask.paging import checked, conditions, fetched, page_options, show
from collector.cli.ask.source import Asking
from collector.cli.render import Style, clip, duration
from collector.query.tasks import DEFAULT_LIMIT, STATES, question

HELP = """
Show Celery tasks, the latest first: state, retries, duration, wait, worker.

The state is that of the latest attempt. LOST is a task that started and never
ended: its process is gone, or it started longer than --lost-after ago.

\b
Examples:
  collector tasks
  collector tasks --lost --since 7d
  collector tasks --task shop.open_order --state failure
  collector tasks --task-id 5b1c2f3a-... --json

The last 24 hours are looked at unless --since says otherwise. It asks the
collector at --endpoint; when none runs there, it reads the store of --config.
Times are UTC. Exit code 0 also when there are none.
"""

_STYLES: dict[str, dict[str, Any]] = {
    "FAILURE": {"fg": "red"},
    "LOST": {"fg": "red", "bold": True},
    "REJECTED": {"fg": "yellow"},
    "RETRY": {"fg": "yellow"},
    "REVOKED": {"fg": "yellow"},
}


@click.command(help=HELP, short_help="Show what became of Celery tasks.")
@click.option("--lost", is_flag=True, help="Only tasks that started and never ended.")
@click.option(
    "--lost-after",
    metavar="DURATION",
    help="A running attempt counts as lost when it began so long ago; 1h unless given.",
)
@click.option("--task", metavar="NAME", help="The name of the task equals this.")
@click.option("--task-id", metavar="ID", help="The id of the task equals this.")
@click.option(
    "--state",
    type=click.Choice(STATES, case_sensitive=False),
    metavar="STATE",
    help=f"The state is this: {', '.join(STATES)}.",
)
@page_options(DEFAULT_LIMIT)
def tasks(*, asking: Asking, style: Style, as_json: bool, limit: int, **given: Any) -> None:
    """Ask, and print task by task."""
    asked = conditions(given)
    checked(question, asked)
    rows, said = fetched(asking, "tasks", "tasks", asked, limit)
    show(
        rows,
        said,
        lambda task: line(task, style),
        as_json=as_json,
        nothing="No task is lost" if given["lost"] else "No task matches",
    )


def line(task: dict[str, Any], style: Style) -> str:
    """A task in one line, and why it is in its state in a second one, when that is known."""
    state = style.paint(f"{clip(task['state']):<8}", _STYLES.get(task["state"], {}))
    parts = [
        style.time(task["updated_unix_nano"]),
        state,
        clip(task["name"]) or "(no name)",
        clip(task["id"]),
        f"retries {task['retries']}",
    ]
    for key, word in (("duration_ms", "took"), ("wait_ms", "waited")):
        if key in task:
            parts.append(f"{word} {duration(task[key])}")
    if "queue" in task:
        parts.append(f"queue {clip(task['queue'])}")
    if "worker" in task:
        parts.append(f"worker {clip(task['worker'])}")
    if style.verbose:
        parts += [
            f"{key} {clip(task[key])}" for key in ("correlation_id", "trace_id") if key in task
        ]
    why = ": ".join(clip(task[key]) for key in ("error_type", "reason") if key in task)
    return "  ".join(parts) + (f"\n{' ' * 25}{why}" if why else "")
