"""The JSON Schema of the YAML: editors take what `collector validate` takes, and see what it refuses."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from collector import cli, components

ROOT = Path(__file__).parents[3]


def configurations():
    """Every whole configuration of this repository: the shipped ones, and those in the docs."""
    for path in [*sorted(ROOT.glob("examples/*/*.yaml")), ROOT / "otel-collector.yaml"]:
        yield str(path.relative_to(ROOT)), path.read_text()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for found in re.finditer(
            r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
        ):
            if "receivers:" in found[1] and "service:" in found[1]:
                yield f"{page.relative_to(ROOT)}:{found.start()}", found[1]


CONFIGURATIONS = list(configurations())


@pytest.fixture(scope="module")
def validator():
    """What an editor asks, made from the text that the command prints."""
    from click.testing import CliRunner

    printed = CliRunner().invoke(cli.cli, ["schema"]).stdout
    schema = json.loads(printed)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def problems(validator, text):
    return [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in validator.iter_errors(yaml.safe_load(text))
    ]


@pytest.mark.parametrize(
    "text", [text for _, text in CONFIGURATIONS], ids=[name for name, _ in CONFIGURATIONS]
)
def test_what_is_valid_has_no_underline(validator, text):
    """Every configuration that `validate` takes is one for the editor too (L10)."""
    assert problems(validator, text) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("exporters: {debug: {verbosty: basic}}", "exporters.debug"),
        ("exporters: {debug/two: {verbosity: loud}}", "exporters.debug/two.verbosity"),
        ("exporters: {kafka: {}}", "exporters"),
        ("receivers: {otlp: {protocols: {grpc: {max_recv_msg_size_mib: many}}}}", "grpc"),
        ("receivers: {otlp: {protocols: {grpc: {read_timeout: 5 minutes}}}}", "read_timeout"),
        ("service: {pipelines: {profiles: {receivers: [otlp]}}}", "service.pipelines"),
        ("service: {pipelines: {logs: {recievers: [otlp]}}}", "service.pipelines.logs"),
        ("processors: {batch: {}}\nbananas: {}", "bananas"),
    ],
)
def test_what_is_wrong_is_underlined(validator, text, where):
    """A key or value that `validate` refuses is one that the editor shows, at its place (L10)."""
    found = problems(validator, text)
    assert len(found) == 1
    assert where in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "exporters: {file: {path: '${env:LOGS}/x', fsync: '${env:FSYNC:-batch}'}}",
        "receivers: {otlp: {protocols: {grpc: , http: {enabled: false}}}}",
        "receivers: {otlp: {protocols: {grpc: {max_recv_msg_size_mib: '${env:SIZE}'}}}}",
        "exporters: {otlp_http/eu: {headers: [{name: a, value: b}], timeout: 1m30s}}",
        "exporters: {'mycompany.sinks:Kafka/eu': {brokers: [a]}}",
        "exporters: ",
    ],
)
def test_what_becomes_a_value_later_has_no_underline(validator, text):
    """Variables, empty sections, lists of headers and foreign components are left alone."""
    assert problems(validator, text) == []


def test_every_component_and_key_has_a_description(validator):
    """An editor shows the docstring of each component and the string under each key."""
    missing = []

    def visit(schema, path):
        for name, inner in schema.get("properties", {}).items():
            if not inner.get("description"):
                missing.append(f"{path}.{name}")
            visit(inner, f"{path}.{name}")

    for kind, types in components.KINDS.items():
        patterns = validator.schema["properties"][kind]["patternProperties"]
        for name in types:
            found = patterns[rf"^{name}(/.+)?$"]
            assert found["description"], name
            visit(found, f"{kind}.{name}")
    assert missing == []
