"""
An application's own pins beside the wheel: it installs with them, and the application answers as before.

The sets are what an application of that year has: FastAPI, Celery and Django of about the same age.
"""

import json
import subprocess
import tempfile
from pathlib import Path

from tests.matrix import cells

APP = Path(__file__).with_name("app.py")
YEARS = {
    "2023": ("fastapi==0.92.0", "celery==5.3.6", "django==4.2"),
    "2023-autumn": ("fastapi==0.95.2", "celery==5.3.6", "django==4.2.16"),
    "2024": ("fastapi==0.109.2", "celery==5.4.0", "django==5.0.14"),
    "2025": ("fastapi==0.115.14", "celery==5.5.3", "django==5.2.3"),
    "today": ("fastapi", "celery", "django"),
}


def problems(python: str, year: str, wheel: Path) -> list[str]:
    """
    What is different beside the wheel; nothing when all is well.

    Args:
        python: the interpreter.
        year: one of YEARS.
        wheel: of this tree.
    """
    with tempfile.TemporaryDirectory(prefix="frameworks-") as name:
        folder = Path(name)
        try:
            inside = cells.environment(folder / "venv", python, YEARS[year])
            before = _answers([inside / "python", APP])
            frozen = cells.uv("pip", "freeze", "--python", f"{inside}/python")
            pins = folder / "pins.txt"
            pins.write_text(frozen)
            cells.uv(
                *("pip", "install", "--python", f"{inside}/python"),
                *("--constraint", str(pins), str(wheel)),
            )
            after = cells.uv("pip", "freeze", "--python", f"{inside}/python")
            moved = sorted(set(frozen.splitlines()) - set(after.splitlines()))
            answers = _answers([inside / "opentelemetry-instrument", inside / "python", APP])
        except RuntimeError as error:
            return [str(error)[-500:]]
    found = [f"moved: {line}" for line in moved]
    found += [
        f"{part}: {before[part]} before, {answers[part]} beside the wheel"
        for part in before
        if before[part] != answers[part]
    ]
    return found


def _answers(command: list[Path]) -> dict[str, object]:
    done = subprocess.run(
        [str(part) for part in command],
        env=cells.clean(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_LOG_LEVEL="none"),
        capture_output=True,
        text=True,
        check=False,
        timeout=cells.PROGRAM_S,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0].name}: {done.stderr.strip()[-400:]}")
    answers: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answers
