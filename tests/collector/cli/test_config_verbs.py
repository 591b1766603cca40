"""`collector validate`, `components` and `print-config`, as a user runs them."""

import json
import socket
from pathlib import Path

import pytest
import yaml

from collector import cli, components
from collector.config import load

ROOT = Path(__file__).parents[3]
SHIPPED = str(ROOT / "otel-collector.yaml")
GOOD = """\
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: localhost:{port}
exporters:
  debug:
  mongodb:
    uri: mongodb://user:${{env:PASSWORD:-pass}}@localhost:27017
service:
  pipelines:
    traces:
      receivers: [otlp]
      exporters: [debug]
"""


@pytest.fixture
def good(tmp_path):
    """A valid configuration whose port is taken, and its path."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        path = tmp_path / "good.yaml"
        path.write_text(GOOD.format(port=taken.getsockname()[1]))
        yield str(path)


def test_validate_is_silent_and_opens_no_port(good, capsys):
    """A valid configuration gives no output and 0, even when its port is taken."""
    assert cli.main(["validate", "--config", good]) == 0
    assert capsys.readouterr() == ("", "")


def test_validate_lists_every_problem(good, tmp_path, capsys):
    """Every problem is on stderr with file, line and fix; the exit code is 1."""
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        "exporters:\n  debug:\n    verbosty: detailed\n"
        "service: {pipelines: {logs: {receivers: [otlp], exporters: [mongo]}}}\n"
    )
    assert cli.main(["validate", "--config", good, "--config", str(bad)]) == 1
    assert capsys.readouterr() == (
        "",
        (
            "Error: failed to get config: cannot unmarshal the configuration: decoding failed due to "
            "the following error(s):\n\n"
            "'exporters' error reading configuration for \"debug\": '' has invalid keys: verbosty\n"
            f'  {bad}:3, exporters.debug.verbosty; did you mean "verbosity"?\n\n'
            'service::pipelines::logs: references exporter "mongo" which is not configured\n'
            f'  {bad}:4, service.pipelines.logs.exporters[0]; did you mean "mongodb"?\n'
        ),
    )


def test_validate_takes_set_and_shows_warnings(good, capsys):
    """--set is part of what is checked, and warnings go to stderr without failing."""
    arguments = ["validate", "--config", good]
    assert cli.main([*arguments, "--set", "exporters.debug.verbosity=Detailed"]) == 0
    assert cli.main([*arguments, "--set", "exporters.debug.verbosity=loud"]) == 1
    assert "unknown value" in capsys.readouterr().err
    assert cli.main([*arguments, "--set", "service.telemetry.traces.level=none"]) == 0
    assert capsys.readouterr().err.startswith(
        "Warning: service.telemetry.traces.level is accepted but has no effect yet\n"
    )


def test_without_config_the_file_in_the_working_folder_is_taken(
    good, tmp_path, monkeypatch, capsys
):
    """otel-collector.yaml in the working folder is the default; without it the built-in one is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TELEMETRY_DATA", "/srv/data")
    assert cli.main(["print-config"]) == 0
    assert "path: /srv/data/telemetry.db" in capsys.readouterr().out
    Path("otel-collector.yaml").write_text("receivers: []\n")
    assert cli.main(["validate"]) == 1
    assert "otel-collector.yaml" in capsys.readouterr().err
    Path("otel-collector.yaml").unlink()
    Path(good).rename("otel-collector.yaml")
    assert cli.main(["validate"]) == 0


def test_other_verbs_print_the_stage_of_the_problem(good, capsys):
    """A verb that needs a valid configuration ends with `Error: invalid configuration: ...`."""
    arguments = ["--config", good, "--set", "service.extensions=[query]"]
    assert cli.main(["print-config", *arguments]) == 1
    assert capsys.readouterr().err.startswith(
        'Error: invalid configuration: service::extensions: references extension "query" '
        "which is not configured\n  --set service.extensions, service.extensions[0]; "
    )


def test_the_shipped_configuration(capsys, monkeypatch):
    """otel-collector.yaml is valid on both stores and warns about nothing."""
    for store in ("sqlite", "mongodb"):
        monkeypatch.setenv("TELEMETRY_STORE", store)
        assert cli.main(["validate", "--config", SHIPPED]) == 0
        assert load([SHIPPED]).pipelines["traces"].exporters == (store, "file")
    assert capsys.readouterr() == ("", "")


def test_print_config_shows_what_is_in_effect(good, capsys):
    """Defaults are filled in, sections that are off are absent, secrets are masked."""
    assert cli.main(["print-config", "--config", good]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["exporters"]["mongodb"]["uri"] == "[REDACTED]"
    assert printed["exporters"]["debug"]["verbosity"] == "basic"
    assert list(printed["receivers"]["otlp"]["protocols"]) == ["grpc"]
    assert printed["service"]["pipelines"] == {
        "traces": {"receivers": ["otlp"], "processors": [], "exporters": ["debug"]}
    }


def test_what_print_config_prints_is_a_configuration(tmp_path, capsys):
    """The printed configuration loads, and means the same."""
    assert cli.main(["print-config", "--config", SHIPPED]) == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out.replace("[REDACTED]", "mongodb://localhost:27017"))
    before, after = load([SHIPPED]), load([str(printed)])
    assert (after.receivers, after.exporters, after.extensions, after.pipelines) == (
        before.receivers,
        before.exporters,
        before.extensions,
        before.pipelines,
    )


def test_print_config_unredacted(good, capsys, monkeypatch):
    """Unredacted is what was written, merged and expanded, as JSON when asked for."""
    monkeypatch.setenv("PASSWORD", "s3cret")
    arguments = ["print-config", "--config", good, "--mode", "unredacted"]
    assert cli.main([*arguments, "--format", "json", "--set", "exporters.file=null"]) == 1
    assert cli.main([*arguments, "--format", "json", "--set", "exporters.debug={}"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["exporters"] == {
        "debug": {},
        "mongodb": {"uri": "mongodb://user:s3cret@localhost:27017"},
    }


def test_print_config_without_validation(tmp_path, capsys):
    """--no-validate prints a configuration that cannot run, dollars doubled where they count."""
    path = tmp_path / "c.yaml"
    path.write_text("exporters: {debug: {verbosity: '$${X} $y'}}\n")
    arguments = ["print-config", "--config", str(path), "--mode", "unredacted"]
    assert cli.main(arguments) == 1
    assert cli.main([*arguments, "--no-validate"]) == 0
    assert capsys.readouterr().out == "exporters:\n  debug:\n    verbosity: $${X} $$y\n"


def test_components_lists_every_component_with_help(capsys):
    """Each registered component is listed with its keys, types, defaults and help."""
    assert cli.main(["components"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert cli.main(["components", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert found["buildinfo"]["command"] == "collector"
    for section, kinds in components.KINDS.items():
        assert {entry["name"]: entry["module"] for entry in found[section]} == kinds
    assert list(helpless(found)) == []


def helpless(found):
    """The keys without help text."""
    waiting = [(entry["name"], entry["keys"]) for kind in components.KINDS for entry in found[kind]]
    for path, keys in waiting:
        for key, entry in keys.items():
            if not entry["help"]:
                yield f"{path}.{key}"
            waiting.append((f"{path}.{key}", entry.get("keys", {})))
