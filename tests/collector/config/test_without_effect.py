"""Keys that are written and change nothing are said, with their place (O2)."""

import pytest

from collector.config import load

YAML = """receivers: {{otlp: {{protocols: {{http: }}}}}}
extensions: {{file_storage: {{directory: q}}}}
exporters:
  otlp_http:
    endpoint: http://localhost:1
    {body}
service:
  extensions: [file_storage]
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}
"""
PLACE = "exporters.otlp_http"


@pytest.mark.parametrize(
    ("body", "warnings"),
    [
        ("retry_on_failure: {max_elapsed_time: 0s}", []),
        ("sending_queue: {storage: file_storage, start: oldest, queue_size: 7}", []),
        ("sending_queue: {sizer: bytes, block_on_overflow: true}", []),
        ("{sending_queue: {enabled: false}, retry_on_failure: {enabled: false}}", None),
        (
            "retry_on_failure: {enabled: false}",
            [("retry_on_failure.enabled has no effect: a sending_queue tries again until "
             "retry_on_failure::max_elapsed_time is over")],
        ),
        (
            "sending_queue: {storage: file_storage, sizer: bytes, block_on_overflow: false}",
            ["sending_queue.sizer has no effect: the budget of the storage is the limit",
             "sending_queue.block_on_overflow has no effect: a full storage refuses requests for now"],
        ),
        (
            "sending_queue: {start: oldest}",
            ["sending_queue.start has no effect: it is for a queue with `storage`"],
        ),
    ],
)  # fmt: skip
def test_each_is_said_once(tmp_path, body, warnings):
    """A warning names the key, the reason and the line; keys that work are silent."""
    file = tmp_path / "c.yaml"
    text = YAML.format(body=body if body[0] != "{" else body[1:-1].replace("}, ", "}\n    "))
    file.write_text(text)
    found = load([str(file)], [], {}).warnings
    assert [each.split("\n")[0].removeprefix(f"{PLACE}.") for each in found] == (warnings or [])
    assert all(f"{file}:6" in each for each in found)
