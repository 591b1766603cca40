"""The configuration in the package: where its data goes, and `collector init`."""

from pathlib import Path

import pytest

from collector import cli
from collector.cli import builtin
from collector.errors import CollectorError

SHIPPED = Path(__file__).parents[3] / "otel-collector.yaml"


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"TELEMETRY_DATA": "here"}, "here"),
        ({"XDG_STATE_HOME": "/state"}, "/state/otelier"),
        ({"XDG_STATE_HOME": "relative"}, "/home/ada/.local/state/otelier"),
        ({}, "/home/ada/.local/state/otelier"),
    ],
)
def test_data_has_one_place_for_each_user(environ, folder, monkeypatch):
    """TELEMETRY_DATA, else $XDG_STATE_HOME/otelier when it is absolute, else ~/.local/state/otelier."""
    monkeypatch.setenv("HOME", "/home/ada")
    assert builtin.data_folder(environ) == Path(folder)


def test_a_data_folder_that_cannot_be_made_names_the_fix(tmp_path):
    """A file in the way is one line with the variable that helps."""
    (tmp_path / "otelier").touch()
    with pytest.raises(CollectorError) as caught:
        builtin.make_data_folder({"XDG_STATE_HOME": str(tmp_path)})
    assert str(caught.value) == (
        f"cannot make the data folder {tmp_path}/otelier: file exists;"
        " set TELEMETRY_DATA=/path/of/a/folder"
    )


def test_the_data_folder_is_for_this_user_alone(tmp_path):
    """It is made with its parents, and others may not read it."""
    folder = builtin.make_data_folder({"XDG_STATE_HOME": str(tmp_path / "new")})
    assert folder == tmp_path / "new" / "otelier"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_init_writes_the_configuration_that_runs_without_it(tmp_path, monkeypatch, capsys):
    """The file has the data folder that was in use, so data stored before is still found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TELEMETRY_DATA", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert cli.main(["init"]) == 0
    assert capsys.readouterr().out == (
        "otel-collector.yaml is written; data goes to /state/otelier.\n"
        "Check a change with `collector validate`, run it with `collector`.\n"
    )
    written = Path("otel-collector.yaml").read_text()
    assert written == SHIPPED.read_text().replace("DATA:-data}", "DATA:-/state/otelier}")
    assert cli.main(["validate"]) == 0


def test_init_never_overwrites(tmp_path, monkeypatch, capsys):
    """A file that exists stays as it is; the error names a way out, which works."""
    monkeypatch.chdir(tmp_path)
    Path("otel-collector.yaml").write_text("mine")
    assert cli.main(["init"]) == 1
    assert capsys.readouterr().err == (
        "Error: otel-collector.yaml exists already and is left as it is; remove it, or name another"
        " file: collector init --output other.yaml\n"
    )
    assert Path("otel-collector.yaml").read_text() == "mine"
    assert cli.main(["init", "--output", "other.yaml"]) == 0
    assert "`collector validate --config other.yaml`" in capsys.readouterr().out


def test_init_into_a_folder_that_is_not_there(tmp_path, capsys):
    """What cannot be written is one line with the reason."""
    target = tmp_path / "no" / "x.yaml"
    assert cli.main(["init", "-o", str(target)]) == 1
    assert capsys.readouterr().err == (f"Error: cannot write {target}: no such file or directory\n")
