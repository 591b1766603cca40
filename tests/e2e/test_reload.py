"""Reload of a real process under load: no request is lost, none is rejected (D3)."""

import http.client
import json
import signal
import socket
import time

import pytest

from tests.load import NOTHING, Load, Places, in_sqlite, verdict
from tests.programs import READY, Collector

pytestmark = pytest.mark.e2e

TEXT = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}"}}
      http: {{endpoint: "127.0.0.1:{http}"}}
processors:
  batch: {{timeout: {timeout}, send_batch_size: 100}}
exporters:
  sqlite: {{path: store.db, max_size_mib: {size}}}
  file: {{path: lines.jsonl, format: json}}
  debug: {{verbosity: basic}}
extensions:
  file_storage: {{directory: queue}}
  health_check: {{endpoint: "127.0.0.1:{health}", reload_path: /reload}}
service:
  telemetry: {{metrics: {{level: none}}}}
  extensions: [file_storage, health_check]
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [{sinks}]}}
    metrics: {{receivers: [otlp], exporters: [{sinks}]}}
    logs: {{receivers: [otlp], exporters: [{sinks}]}}
"""
FIRST = {"timeout": "10ms", "size": 0, "sinks": "sqlite"}
CHANGES = [
    {"timeout": "20ms"},  # another processor
    {"size": 1000},  # another store on the same file
    {"sinks": "sqlite, file"},  # one more exporter
    {"sinks": "file, sqlite", "timeout": "5ms"},
    {},  # back to the first
]


class Reloaded:
    """A collector whose configuration changes."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.places = Places("grpc", "http", "health", "grpc2", "http2")
        self.settings = {each: self.places[each] for each in ("grpc", "http", "health")} | FIRST
        self.settings |= settings
        self.write()
        self.collector = Collector(folder, sets=(), config="collector.yaml")

    def write(self, text=TEXT, **settings):
        self.settings |= settings
        (self.folder / "collector.yaml").write_text(text.format(**self.settings))

    @property
    def addresses(self):
        return {each: f"127.0.0.1:{self.settings[each]}" for each in ("grpc", "http")}

    def order(self, *, logged=True, **headers):
        """POST /reload; status and text, when the log has it, too."""
        before = self.done()
        connection = http.client.HTTPConnection("127.0.0.1", self.settings["health"], timeout=60)
        try:
            connection.request("POST", "/reload", headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if logged and answer.status in (200, 422):
            self.until_done(before)
        return answer.status, text

    def hang_up(self):
        """SIGHUP; wait until the log says what became of it."""
        before = self.done()
        self.collector.process.send_signal(signal.SIGHUP)
        self.until_done(before)

    def until_done(self, before):
        deadline = time.monotonic() + 60
        while self.done() == before:
            assert time.monotonic() < deadline, self.collector.text
            assert self.collector.process.poll() is None, self.collector.text
            time.sleep(0.01)

    def done(self):
        text = self.collector.text
        return text.count("configuration was read again") + text.count("is refused")

    def __enter__(self):
        self.collector.__enter__()
        self.collector.wait_for(READY)
        return self

    def __exit__(self, *exc):
        self.collector.__exit__(*exc)
        self.places.__exit__(*exc)


@pytest.mark.parametrize(
    "reloads", [20, pytest.param(500, marks=[pytest.mark.full, pytest.mark.timeout(3600)])]
)
def test_reloads_under_load_lose_nothing(tmp_path, reloads):
    """Processors, the store, and exporters are exchanged under four clients: accepted = stored."""
    with Reloaded(tmp_path) as running, Load(running.addresses, rate=2000) as load:
        for number in range(reloads):
            change = CHANGES[number % len(CHANGES)]
            running.write(**(FIRST | change))
            load.until_taken(20)
            running.hang_up()
        load.until_taken(20)
        load.finish()
        assert running.collector.stop() == 0
    assert "is refused" not in running.collector.text
    assert verdict(load, in_sqlite(tmp_path / "store.db"), seed=reloads) == NOTHING
    assert not load.unanswered
    exchanged = running.collector.text.count("stopped exporters::sqlite")
    assert exchanged == reloads // len(CHANGES) * 2, running.collector.text  # to another, and back


def test_a_wrong_file_is_refused_under_load(tmp_path):
    """Every problem is in the log and in the answer; senders notice nothing."""
    wrong = TEXT.replace("verbosity: basic", "verbosty: basic").replace(
        "[{sinks}]", "[{sinks}, nowhere]"
    )
    with Reloaded(tmp_path) as running, Load(running.addresses, rate=1000) as load:
        load.until_taken(20)
        running.write(wrong)
        running.hang_up()
        status, text = running.order()
        load.until_taken(100)
        load.finish()
        for problem in ("invalid keys: verbosty", 'references exporter "nowhere"'):
            assert problem in text
            assert problem in running.collector.text
        assert status == 422
        assert running.collector.stop() == 0
    assert load.later == 0  # not one answer was anything but success
    assert verdict(load, in_sqlite(tmp_path / "store.db")) == NOTHING


def test_what_cannot_start_is_refused_under_load(tmp_path):
    """A port that somebody else has: the answer names it, and the old ports still take data."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        Reloaded(tmp_path) as running,
        Load(running.addresses, rate=1000) as load,
    ):
        load.until_taken(20)
        port = taken.getsockname()[1]
        running.write(TEXT.replace("{http}", str(port)), sinks="sqlite, file", size=1000)
        status, text = running.order()
        load.until_taken(100)
        load.finish()
        assert running.collector.stop() == 0
    assert status == 422
    assert f"127.0.0.1:{port}" in text
    assert verdict(load, in_sqlite(tmp_path / "store.db")) == NOTHING
    assert not load.unanswered


def test_ports_change_under_load(tmp_path):
    """Clients that go to the new port, and those at the old one, lose nothing."""
    with Reloaded(tmp_path) as running:
        with Load(dict(running.addresses), rate=1000, mark="old") as old:
            old.until_taken(20)
            running.write(http=running.places["http2"], grpc=running.places["grpc2"])
            status, text = running.order()
            assert (status, text) == (200, "The configuration was read again: started receivers::otlp; stopped receivers::otlp\n")  # fmt: skip
            with Load(running.addresses, rate=1000, mark="new") as new:
                new.until_taken(200)
                new.finish()
            old.finish(0.0)  # nobody is there any more
        assert running.collector.stop() == 0
    found = in_sqlite(tmp_path / "store.db")
    assert verdict(old, [each for each in found if each.startswith("old")]) == NOTHING
    assert verdict(new, [each for each in found if each.startswith("new")]) == NOTHING


def test_settings_of_a_receiver_change_on_its_port(tmp_path):
    """The port is closed and open again; what came in between is sent again by who sent it."""
    with Reloaded(tmp_path) as running, Load(running.addresses, rate=1000) as load:
        for number in range(4):
            limit = 1 << 20 if number % 2 else 2 << 20
            text = TEXT.replace(
                '"127.0.0.1:{http}"', f'"127.0.0.1:{{http}}", max_request_body_size: {limit}'
            )
            running.write(text)
            load.until_taken(50)
            running.hang_up()
        load.until_taken(50)
        load.finish()
        assert running.collector.stop() == 0
    assert running.collector.text.count("started receivers::otlp") == 4
    assert verdict(load, in_sqlite(tmp_path / "store.db")) == NOTHING
    assert not load.unanswered


def test_web_pages_cannot_reload(tmp_path):
    """B71, B72, B80: an Origin, another Host or a GET is refused; without the key there is no path."""
    with Reloaded(tmp_path) as running:
        assert running.order(Origin="http://localhost:13133")[0] == 403
        assert running.order(Host="evil.example")[0] == 421
        assert running.order() == (200, "The configuration was read again: nothing else runs now\n")
        running.write(TEXT.replace(", reload_path: /reload", ""))
        running.hang_up()
        assert running.order()[0] == 404
        assert running.collector.stop() == 0


def test_log_level_follows_the_file(tmp_path):
    """What concerns the process itself is taken over, too."""
    with Reloaded(tmp_path) as running:
        running.write(TEXT.replace("telemetry: {{", "telemetry: {{logs: {{level: warn}}, "))
        assert running.order(logged=False)[0] == 200
        assert running.collector.stop() == 0
    assert "Starting shutdown" not in running.collector.text
    assert json.dumps("Everything is ready")[1:-1] in running.collector.text
