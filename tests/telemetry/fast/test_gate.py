"""When the fast path is open, when it is not, and who says why (P, L)."""

import pytest
from opentelemetry.sdk.version import __version__ as sdk_version

from telemetry._fast import gate

known = pytest.mark.skipif(
    bool(gate.unknown_version()), reason="the fast path does not know the installed SDK"
)
STATUS = """
    import telemetry
    telemetry.configure(log_format="none"{arguments})
    from telemetry._fast import gate
    print(gate.status())
"""


@known
def test_it_is_open_where_the_release_is_known(run):
    """By default, for all signals, without a word."""
    done = run(STATUS.format(arguments=""))
    expected = f"Status(signals=('traces', 'logs', 'metrics'), reason='', sdk='{sdk_version}')"
    assert (done.stdout.strip(), done.stderr) == (expected, "")


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_it_can_be_switched_off(run, how):
    """By argument or variable: asked for, so nothing is said."""
    if how == "argument":
        done = run(STATUS.format(arguments=', fast_path="off"'))
    else:
        done = run(STATUS.format(arguments=""), TELEMETRY_FAST_PATH="off")
    expected = f"Status(signals=(), reason='TELEMETRY_FAST_PATH=off', sdk='{sdk_version}')"
    assert (done.stdout.strip(), done.stderr) == (expected, "")


def test_a_wrong_word_is_an_error(run):
    """As with each setting: the fix is named."""
    done = run(STATUS.format(arguments=', fast_path="yes"'), check=False)
    assert "fast_path='yes' cannot be used; give one of auto, off" in done.stderr


def test_another_release_takes_the_sdk_path_and_says_so(run, receiver):
    """One line, the reason in the status, and every record arrives."""
    code = """
    import telemetry
    from telemetry._fast import gate
    gate.SUPPORTED = frozenset({"0.0.1"})
    telemetry.configure(log_format="none")
    with telemetry.span("work"):
        telemetry.get_logger("shop").info("it")
    telemetry.flush()
    print(gate.status().signals, gate.status().reason)
    """
    done = run(code, endpoint=receiver.url)
    reason = (
        f"opentelemetry-sdk {sdk_version} with opentelemetry-api {sdk_version} is not among the"
        " releases that the fast path knows (0.0.1)"
    )
    assert done.stdout.strip() == f"() {reason}"
    assert done.stderr.strip() == f"otelier: records take the SDK path: {reason}"
    assert ([span["name"] for span in receiver.spans], receiver.messages) == (["work"], ["it"])


BROKEN = {
    "a span": "from telemetry._fast import spans\n    spans.OVERHEAD = 1",
    "a log record": "from telemetry._logs import record\n    record.OVERHEAD = 1",
    "a measurement": "from telemetry._fast import metrics\n    metrics.bisect_left = lambda *_: 0",
    "an exception": "from telemetry._fast import traces\n    del traces.quicken",
}


@known
@pytest.mark.parametrize("what", BROKEN, ids=str)
def test_a_difference_that_the_self_test_finds(run, receiver, what):
    """A field that the fast path would make otherwise: it stays closed, and every record arrives."""
    code = f"""
    import telemetry
    {BROKEN[what]}
    from telemetry._fast import gate
    telemetry.configure(log_format="none")
    with telemetry.span("work"):
        telemetry.get_logger("shop").info("it")
    telemetry.flush()
    print(gate.status().signals, "self-test" in gate.status().reason)
    """
    done = run(code, endpoint=receiver.url)
    assert done.stdout.strip() == "() True"
    assert done.stderr.count("records take the SDK path: the self-test") == 1
    assert ([span["name"] for span in receiver.spans], receiver.messages) == (["work"], ["it"])


def test_a_provider_of_somebody_else_is_left_alone(run):
    """Its tracers are the SDK's own; the other signals keep the fast path."""
    code = """
    import telemetry
    from opentelemetry import trace
    from opentelemetry.sdk.trace import Tracer, TracerProvider
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    telemetry.configure(log_format="none")
    from telemetry._fast import gate
    print(type(trace.get_tracer("t")) is Tracer, "traces" in gate.status().signals)
    """
    assert run(code).stdout.strip() == "True False"


def test_before_configure_the_status_says_so(run):
    """`telemetry doctor` may ask at any time."""
    code = "from telemetry._fast import gate; print(gate.status().reason)"
    assert run(code).stdout.strip() == "telemetry is not configured"


def test_nothing_private_is_imported_for_an_unknown_release(run):
    """The modules that lean on private names stay out of a process that does not use them."""
    code = """
    import sys
    import telemetry
    telemetry.configure(log_format="none", fast_path="off")
    print(sorted(name for name in sys.modules if name.startswith("telemetry._fast")))
    """
    done = run(code)
    assert done.stdout.strip() == "['telemetry._fast', 'telemetry._fast.gate']"
