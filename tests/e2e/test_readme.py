"""
README's first screen is what happens: its twelve lines run, and the picture shows their trace.

`OTELIER_PICTURES=1 python -m pytest tests/e2e/test_readme.py` draws the picture again; without it the picture is
compared with what the command prints now, digits and bars aside.
"""

import html
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from tests.programs import Collector

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PICTURE = ROOT / "docs" / "pictures" / "first-screen.svg"
COLUMNS = 104


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What `collector trace corr-42` prints on a terminal after README's program has run."""
    folder = tmp_path_factory.mktemp("readme")
    readme = (ROOT / "README.md").read_text()
    program = re.search(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)[1]
    (folder / "shop.py").write_text(program)
    path = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    with Collector(folder) as collector:
        otlp = f"http://{collector.address('receivers::otlp', 'http')}"
        asked = f"http://{collector.address('extensions::query', 'http')}"
        ran = subprocess.run(
            ["opentelemetry-instrument", "--service_name", "shop", "python", "shop.py"],
            cwd=folder,
            env={**path, "OTEL_EXPORTER_OTLP_ENDPOINT": otlp},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        for _ in range(100):
            answer = subprocess.run(
                ["collector", "trace", "corr-42", "--endpoint", asked],
                cwd=folder,
                env={**path, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"},
                capture_output=True,
                text=True,
                check=False,
            )
            if answer.returncode == 0:
                return answer.stdout
            time.sleep(0.1)
    raise AssertionError(answer.stderr)


def drawn(text):
    """A terminal with the command and its answer, as SVG."""
    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(Text.from_markup("[bold green]$[/] collector trace corr-42"))
    console.print(Text.from_ansi(text.rstrip("\n")))
    # No font is fetched: the reader's own monospaced one will do.
    svg = console.export_svg(title="collector trace corr-42", unique_id="first-screen")
    return re.sub(r"\s*@font-face \{.*?\}\n", "", svg, flags=re.DOTALL)


def masked(text):
    """The words of an output: without digits, ids, bars and the space between."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return re.sub(r"[0-9a-f]{16,}|[\d.:+█▏▎▍▌▋▊▉ |-]+", "", plain).split()


def words_of(svg):
    """The texts of a picture, in order."""
    found = re.findall(r"<text[^>]*>(.*?)</text>", svg)
    return html.unescape("".join(f"{each}\n" for each in found)).replace("\xa0", " ")


def test_the_picture_shows_what_the_command_prints(printed):
    """The spans and lines in the picture are those of README's program today."""
    if os.environ.get("OTELIER_PICTURES") == "1":
        PICTURE.write_text(drawn(printed))
    shown = words_of(PICTURE.read_text())
    assert masked(shown) == masked(words_of(drawn(printed)))


def test_readme_shows_the_picture_and_what_it_shows(printed):
    """README embeds it; span, log line and id of the twelve lines are in the answer."""
    assert "](docs/pictures/first-screen.svg)" in (ROOT / "README.md").read_text()
    assert {"score order", "scoring", "close to the limit", "corr-42"} <= {
        part
        for part in ("score order", "scoring", "close to the limit", "corr-42")
        if part in printed
    }
