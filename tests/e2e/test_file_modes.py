"""Everything that the shipped configuration writes is closed to others, under any umask (R8, B71)."""

import os
import stat

import pytest

from tests.e2e.test_run import HttpLogs, HttpMetrics, HttpSpans, emit
from tests.programs import READY, Collector

pytestmark = pytest.mark.e2e


def test_every_file_of_the_shipped_configuration(tmp_path):
    """Stores, queue, logs, locks and journals: files 0640 or less, folders 0750 or less."""
    before = os.umask(0)
    try:
        collector = Collector(tmp_path)
    finally:
        os.umask(before)
    with collector:
        collector.wait_for(READY)
        where = "http://" + collector.address("receivers::otlp", "http") + "/v1/"
        emit(HttpSpans(where + "traces"), HttpLogs(where + "logs"), HttpMetrics(where + "metrics"))
        found = {path: path.stat() for path in (tmp_path / "data").rglob("*")}
        assert collector.stop() == 0
    assert len(found) > 6
    for path, each in found.items():
        most = 0o750 if stat.S_ISDIR(each.st_mode) else 0o640
        assert stat.S_IMODE(each.st_mode) & ~most == 0, path
