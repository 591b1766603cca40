"""The resource processor, alone and in a service."""

import pytest

from collector.config import InvalidConfig
from collector.errors import Permanent, Retryable
from collector.processors.resource import Resource
from collector.processors.shared.actions import Action
from tests.collector.processors.parts import (
    Sink,
    host,
    logs,
    metrics,
    plain,
    service,
    span,
    through,
    traces,
)

pytestmark = pytest.mark.anyio

POINT = {"name": "m", "points": [({}, 1)]}


async def test_one_configuration_edits_the_resources_of_all_signals(tmp_path):
    """Traces, metrics and logs of a real service get and lose the same resource attributes."""
    yaml = {
        "resource/env": {
            "attributes": [
                {"key": "deployment.environment.name", "value": "test", "action": "insert"},
                {"key": "host.name", "action": "delete"},
                {"key": "service.name", "from_attribute": "app", "action": "upsert"},
            ]
        }
    }
    before = {"host.name": "db1", "app": "shop"}
    after = {"app": "shop", "deployment.environment.name": "test", "service.name": "shop"}
    sent = [make(item, resource=before) for make, item in make_each()]
    seen, counters = await through(tmp_path, yaml, *sent)
    assert seen == [plain(make(item, resource=after)) for make, item in make_each()]
    assert counters == {
        f'otelcol_processor_{way}_items{{otel_signal="{signal}",processor="resource/env"}}': 1
        for way in ("incoming", "outgoing")
        for signal in ("traces", "metrics", "logs")
    }


def make_each():
    return [(traces, span("a")), (metrics, POINT), (logs, {"body": "a"})]


async def test_bytes_stay_when_nothing_changes():
    """A batch that no action touches travels on with the bytes that it came with."""
    action = Action(action="delete", key="absent")
    sink = Sink()
    processor = Resource(Resource.Config(attributes=[action]), host(), sink)
    sent = logs({"body": "a"}, resource={"a": 1})
    wire = sent.wire
    await processor(sent)
    assert sink.batches == [sent]
    assert sent.wire == wire


async def test_bytes_go_when_something_changes():
    """The bytes beside a changed message are gone, so that nobody stores the old ones."""
    action = Action(action="delete", key="a")
    sent = logs({"body": "a"}, resource={"a": 1})
    await Resource(Resource.Config(attributes=[action]), host(), Sink())(sent)
    assert sent.wire is None


@pytest.mark.parametrize("error", [Retryable("later", 7.0), Permanent("never")])
async def test_errors_of_what_follows_pass_through(error):
    """The sender gets the exporter's own answer."""
    sink = Sink()
    sink.errors = [error]
    action = Action(action="insert", key="a", value=1)
    with pytest.raises(type(error)) as caught:
        await Resource(Resource.Config(attributes=[action]), host(), sink)(logs({"body": "a"}))
    assert caught.value is error


async def test_wrong_actions_are_found_at_start(tmp_path):
    """Every wrong action is reported with its place in the list."""
    actions = [
        {"key": "a", "action": "insert"},
        {"action": "upsert", "value": 1},
        {"key": "a", "action": "insert", "value": 1, "from_attribute": "b"},
        {"key": "a", "action": "upsert", "from_context": "metadata.x"},
        {"key": "a", "action": "delete", "value": 1},
        {"action": "delete"},
        {"action": "hash", "pattern": "(a+)+$"},
        {"key": "a", "action": "extract"},
        {"key": "a", "action": "extract", "pattern": "(?P<b>.)(.)"},
        {"key": "a", "action": "convert"},
        {"key": "a", "action": "insert", "value": 2**63},
        {"key": "a", "action": "insert", "value": 1, "pattern": "b"},
    ]
    with pytest.raises(InvalidConfig) as caught:
        service(tmp_path, {"resource": {"attributes": actions}})
    found = [problem.split("\n")[0].split(": ", 1)[1] for problem in caught.value.problems]
    assert [text[: text.index("]") + 1] for text in found] == [
        f"attributes[{place}]" for place in range(len(actions))
    ]
    assert found[0] == (
        'attributes[0]: action "insert": one of value, from_attribute or default_value must be set'
    )
    assert found[3] == (
        'attributes[3]: action "upsert": from_context "metadata.x" is not supported, because the '
        "metadata of requests is not kept; use value or from_attribute"
    )


async def test_no_actions_is_a_mistake(tmp_path):
    """A processor that does nothing is refused."""
    with pytest.raises(InvalidConfig, match="attributes must not be empty"):
        service(tmp_path, {"resource": {}})
