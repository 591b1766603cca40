"""The wheel and its extras: what `pip install otelier` brings, says and leaves alone."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import telemetry
from tests.matrix import cells, pythons

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
HAVE = pythons.found()
SERVER = {"starlette", "uvicorn", "httptools", "pymongo", "zstandard", "pyyaml", "grpcio"}
SERVER |= {"click", "rich", "google-re2", "googleapis-common-protos", "opentelemetry-exporter-otlp"}

LOAD = """
import importlib.machinery, importlib.util, sys
def load(name, path):
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module
folder = sys.argv[1]
load("telemetry._core", folder + "/telemetry/_core.abi3.so")
core = load("collector._core", folder + "/collector/_core.abi3.so")
try:
    core.decode(object(), b"bytes with a length")
except ValueError:
    print("loaded and called")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this tree, built by this Python."""
    return cells.build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def library(tmp_path_factory, wheel):
    """An environment after `pip install otelier`: the folder of its programs."""
    return cells.environment(tmp_path_factory.mktemp("library") / "venv", sys.executable, [wheel])


def run(*command, cwd=None):
    """The exit code, stdout and stderr."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=cells.clean(),
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_library_brings_nothing_of_a_server(library):
    """`pip install otelier` installs none of the server's packages, and the library works."""
    code, listed, problem = run(
        library / "python",
        "-c",
        "from importlib.metadata import distributions as all;"
        " print(*{each.name.lower() for each in all()})",
    )
    assert code == 0, problem
    assert set(listed.split()) & SERVER == set()
    use = (
        "import telemetry\n"
        "telemetry.configure(endpoint='http://127.0.0.1:9', exit_timeout=0.1)\n"
        "with telemetry.span('a'): telemetry.get_logger('b').info('c')\n"
    )
    code, _, problem = run(library / "python", "-W", "error", "-c", use)
    assert code == 0, problem
    assert "Traceback" not in problem


COLLECTOR_LACKS = "click, rich, yaml, google.rpc, grpc, httptools, pymongo, re2, starlette, uvicorn, websockets, zstandard"


@pytest.mark.parametrize(
    ("command", "lacks", "extra"),
    [
        (("collector", "trace", "x"), COLLECTOR_LACKS, "collector"),
        (("telemetry", "doctor"), "click, rich", "cli"),
    ],
)
def test_a_program_without_its_extra_names_it(library, tmp_path, command, lacks, extra):
    """Each program says in one line which extra to install."""
    name, *arguments = command
    said = f'{name}: its packages are not installed ({lacks}): pip install "otelier[{extra}]"\n'
    assert run(library / name, *arguments, cwd=tmp_path) == (1, "", said)


def test_the_collector_extra_is_complete(tmp_path, wheel):
    """With the extra `collector` alone every component can be imported, and the configuration is in the wheel."""
    inside = cells.environment(tmp_path / "venv", sys.executable, [f"{wheel}[collector]"])
    code, shown, problem = run(inside / "collector", "components", cwd=tmp_path)
    assert code == 0, problem
    assert "mongodb" in shown
    assert run(inside / "collector", "validate", cwd=tmp_path)[0] == 0
    assert run(inside / "collector", "init", cwd=tmp_path)[0] == 0
    assert run(inside / "collector", "validate", cwd=tmp_path)[0] == 0


@pytest.mark.parametrize("version", pythons.WANTED)
def test_one_wheel_serves_every_python(version, wheel, tmp_path):
    """Both native cores of the one wheel load on each interpreter, and take bytes with a length."""
    if version not in HAVE:
        pytest.skip(f"Python {version} is not on this machine; OTELIER_PYTHONS=/path names one")
    if version.endswith("t"):
        pytest.skip("a free-threaded Python loads no abi3 module: it runs the pure-Python core")
    assert "-cp311-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path)
    done = run(HAVE[version], "-c", LOAD, tmp_path)
    assert done == (0, "loaded and called\n", "")


def test_a_wheel_that_a_newer_python_built_serves_an_older_one(tmp_path):
    """Whichever headers built it: the newest Python's wheel loads on the oldest."""
    oldest, newest = next(iter(HAVE.values())), next(reversed(HAVE.values()))
    include = "import sysconfig; print(sysconfig.get_path('include'))"
    if not Path(run(newest, "-c", include)[1].strip(), "Python.h").exists():
        pytest.skip(f"{newest} has no headers")
    before = (ROOT / "collector" / "_core.abi3.so").stat().st_ino
    cells.uv("build", "--wheel", "--python", newest, "--out-dir", str(tmp_path), str(ROOT))
    assert (ROOT / "collector" / "_core.abi3.so").stat().st_ino == before
    (wheel,) = tmp_path.glob("*.whl")
    assert "-cp311-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path)
    assert run(oldest, "-c", LOAD, tmp_path) == (0, "loaded and called\n", "")


def test_without_a_compiler_the_wheel_is_complete_and_the_install_says_so(tmp_path):
    """A machine without a C compiler gets the pure-Python wheel, and one line that names the fix."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "-v", "wheel"),
            *("--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)),
        ],
        env=cells.clean(CC="no-such-compiler"),
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert [path.name for path in tmp_path.glob("*.whl")] == ["otelier-0.1.0-py3-none-any.whl"]
    assert "no C compiler (no-such-compiler)" in done.stdout + done.stderr


def test_the_version_of_a_tag_is_checked():
    """A tag that is not what both files say ends with both versions and what to do."""
    check = ROOT / ".ci" / "version"
    good = run(check, f"v{telemetry.__version__}")
    assert good == (0, "v0.1.0: pyproject.toml and telemetry/_version.py say the same\n", "")
    code, _, problem = run(check, "v9.9.9")
    assert code == 1
    assert (
        "v9.9.9 is not what the files say: pyproject.toml 0.1.0, telemetry/_version.py 0.1.0"
        in problem
    )
