"""What a component may have beside its configuration, seen by the programs that look for it."""

import msgspec
import pytest

from collector.cli import main
from collector.errors import Retryable
from collector.model import Batch, Request, Signal, admit, mutates, place_of, signals_of

CONFIG = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:0"}}}}}}}}
exporters: {{"{exporter}": {{{keys}}}}}
service: {{pipelines: {{{pipeline}: {{receivers: [otlp], exporters: ["{exporter}"]}}}}}}
"""


class LogsOnly:
    """An exporter of a third party that is made for log records, and has every optional member."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Its settings."""

        room: int = 1
        """How much it takes."""

    signals = frozenset({Signal.LOGS})
    durability = "kept on paper"

    def __init__(self, config, host):
        self.room = config.room

    @staticmethod
    def check(config):
        """Room must be a number of pages."""
        if config.room < 0:
            yield "room must not be negative; write a number of pages"

    def describe(self):
        """Where it writes."""
        return "a drawer"

    def admit(self):
        """It takes what it has room for."""
        if not self.room:
            raise Retryable("the drawer is full")

    async def __call__(self, batch):
        """Take a batch."""


class Plain:
    """A component with nothing but a configuration."""

    Config = LogsOnly.Config

    async def __call__(self, batch):
        """Take a batch."""


class Listener(Plain):
    """A component that listens, and that answers questions."""

    endpoints = {"http": "127.0.0.1:4318", "grpc": "127.0.0.1:4317"}  # noqa: RUF012 - as a component has it

    async def find(self, query):
        """Nothing."""


def validate(capsys, tmp_path, pipeline, keys=""):
    """The exit code and the output of `collector validate`."""
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG.format(exporter=f"{__name__}:LogsOnly", pipeline=pipeline, keys=keys))
    code = main(["validate", "--config", str(path)])
    return code, capsys.readouterr().err


def test_a_logs_only_exporter_in_a_traces_pipeline_is_a_problem(capsys, tmp_path):
    """`validate` names the exporter, the signal, the place and what the exporter takes."""
    code, output = validate(capsys, tmp_path, "traces")
    assert code == 1
    assert (
        f'failed to create "{__name__}:LogsOnly" exporter for data type "traces": '
        "telemetry type is not supported" in output
    )
    assert "it takes logs" in output
    assert validate(capsys, tmp_path, "logs")[0] == 0


def test_check_is_asked_by_validate(capsys, tmp_path):
    """A rule beyond types is reported with its place, and ends `validate` with 1."""
    code, output = validate(capsys, tmp_path, "logs", "room: -1")
    assert code == 1
    assert "room must not be negative; write a number of pages" in output


def test_what_a_component_leaves_out_has_a_meaning():
    """Without the optional members: all signals, no edits, always admitted, nothing to show."""
    component = Plain()
    assert signals_of(Plain) == set(Signal)
    assert mutates(Plain) is False
    admit(component)
    assert place_of(component) == ""


def test_what_a_component_says_is_shown_and_kept_to():
    """A place has its durability behind it; `admit` raises what the component raises."""
    config = LogsOnly.Config(room=0)
    component = LogsOnly(config, None)
    assert place_of(component) == "a drawer (kept on paper)"
    assert signals_of(LogsOnly) == {Signal.LOGS}
    with pytest.raises(Retryable, match="the drawer is full"):
        admit(component)


def test_a_listener_and_a_store_are_described_without_describe():
    """Addresses are the place; a store that says nothing else has answered when it has stored."""
    assert place_of(Listener()) == (
        "http 127.0.0.1:4318, grpc 127.0.0.1:4317 (answered when stored)"
    )


def test_a_changed_batch_forgets_what_was_made_from_it():
    """After an edit neither the bytes as they came nor documents may be used."""
    batch = Batch(Signal.LOGS, object(), Request(1, b"k"), b"wire", [{}])
    batch.changed()
    assert (batch.wire, batch.made) == (None, None)
