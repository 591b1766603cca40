"""R9: analyses go on while the store is stopped, and every record arrives once it is back."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.e2e.test_run import READY, Collector

pytestmark = pytest.mark.e2e

ANALYSES = 200
APPLICATION = f"""
    import asyncio, sys
    import telemetry
    from telemetry import ml

    telemetry.configure(service_name="risk-worker", diagnostics="none")
    scores = ml.Ensemble(weights={{"rule_based": 0.6, "ml": 0.4}}, scale_max=10_000,
                         bands={{"LOW": 3000, "MEDIUM": 6000, "HIGH": 10_000}})

    def calculate(number):
        with scores.evaluate(subject=number, number=number) as e:
            e.member("rule_based", 4200)
            with ml.inference(model="wallet-risk") as run, run.stage("predict"):
                run.score = 4800
            e.member("ml", 4800)
        return e.final

    async def main():
        return await asyncio.gather(
            *(asyncio.to_thread(calculate, number) for number in range({ANALYSES}))
        )

    def say(text):
        print(text, flush=True)

    say("begun")
    sys.stdin.readline()
    with telemetry.log_context(correlation_id="r9"):
        finals = asyncio.run(main())
    say("finished " + str(finals == [4440.0] * {ANALYSES}))
    say("exported " + str(telemetry.report()["logs"]["exported"]))
    sys.stdin.readline()
    while not telemetry.flush(1.0):
        pass
    say("flushed")
"""


class Application:
    """The analyses in a process of their own, told by lines when to go on."""

    def __init__(self, folder, endpoint):
        script = folder / "application.py"
        script.write_text(textwrap.dedent(APPLICATION))
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            env={"PATH": os.environ["PATH"], "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self):
        return self.process.stdout.readline().strip()

    def go_on(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self):
        """Wait for its end; kill it should the test have failed."""
        try:
            return self.process.wait(30) if sys.exc_info()[1] is None else None
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()


def scored(endpoint):
    """The numbers of the analyses that the store has, once the queue before it is empty."""
    give_up = time.monotonic() + 60
    while len(found := known(endpoint)) < ANALYSES and time.monotonic() < give_up:
        time.sleep(0.2)
    return found


def known(endpoint):
    """The numbers of the analyses that the collector knows, from its own command."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "collector", "logs", "--json", "--endpoint", endpoint),
            *("--correlation-id", "r9", "--event", "risk.score.evaluated", "--limit", "10000"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return sorted(json.loads(line)["attributes"]["number"] for line in done.stdout.splitlines())


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_the_main_flow_does_not_wait_for_mongodb(tmp_path, mongod, how):
    """R1, R9: 200 analyses end while MongoDB is gone; when it is back each is stored once."""
    mongod.start()
    environ = {"TELEMETRY_STORE": "mongodb", "MONGODB_URI": mongod.uri}
    with Collector(tmp_path, **environ) as collector:
        collector.wait_for(READY)
        application = Application(
            tmp_path, "http://" + collector.address("receivers::otlp", "http")
        )
        try:
            assert application.says() == "begun"
            if how == "killed":
                mongod.kill()
            else:
                mongod.freeze()
            application.go_on()
            # These lines are read while MongoDB is down, and it is started only after them.
            assert application.says() == "finished True"
            assert application.says().startswith("exported ")  # the collector's queue may take some
            if how == "killed":
                mongod.start()
            else:
                mongod.thaw()
            application.go_on()
            assert application.says() == "flushed"
        finally:
            application.end()
        found = scored("http://" + collector.address("extensions::query", "http"))
        assert found == list(range(ANALYSES))


def test_the_main_flow_does_not_wait_for_the_collector(tmp_path):
    """R1, R9: the same with a collector that is killed: it comes back on its port and gets it all."""
    with Collector(tmp_path) as collector:
        collector.wait_for(READY)
        address = collector.address("receivers::otlp", "http")
        application = Application(tmp_path, "http://" + address)
        assert application.says() == "begun"
        assert collector.stop(signal.SIGKILL) == -signal.SIGKILL
    try:
        application.go_on()
        assert application.says() == "finished True"
        assert application.says() == "exported 0"
        sets = (
            "receivers.otlp.protocols.grpc.endpoint=127.0.0.1:0",
            f"receivers.otlp.protocols.http.endpoint={address}",
            "extensions.health_check.endpoint=127.0.0.1:0",
            "extensions.query.endpoint=127.0.0.1:0",
        )
        with Collector(tmp_path, sets=sets) as collector:
            collector.wait_for(READY)
            application.go_on()
            assert application.says() == "flushed"
            found = scored("http://" + collector.address("extensions::query", "http"))
            assert found == list(range(ANALYSES))
    finally:
        application.end()
