"""
Write the dashboards: one JSON file for each module of `dashboards/`, into `json/`.

    python deploy/grafana/make.py

The JSON is committed, because Grafana reads it as it is; a test runs this and expects no difference.
Change a dashboard here, not in its JSON. What is not made: provisioning/, which is written by hand.
"""

import json
import sys
from pathlib import Path

from dashboards import batches, celery, fleet, http, logs, one_id, orders, own, risk, tenant

HERE = Path(__file__).parent
DASHBOARDS = (fleet, http, celery, risk, orders, batches, own, logs, tenant, one_id)


def main(folder: Path) -> None:
    """Write all files; those of dashboards that are no more go."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {each.DASHBOARD["uid"]: each.DASHBOARD for each in DASHBOARDS}
    for old in folder.glob("*.json"):
        if old.stem not in made:
            old.unlink()
    for uid, found in made.items():
        (folder / f"{uid}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "json")
