"""The table of the reference: what it calls supported runs, what it does not is refused."""

import contextlib
import runpy
from pathlib import Path

import pytest

from collector.query.logql import PipelineError, QueryError, parse, show, tree
from collector.query.logql.evaluation import logs, metrics
from collector.query.logql.evaluation.source import Documents
from tests.logql import END, SECOND, START, log_documents

ROOT = Path(__file__).parents[4]
CONSTRUCTS = runpy.run_path(str(ROOT / "docs" / "logql_constructs.py"))["CONSTRUCTS"]
EXAMPLES = [example for rows in CONSTRUCTS.values() for _, example, _ in rows]
PAGE = (ROOT / "docs" / "reference" / "logql.md").read_text().replace("\\|", "|")


def refusal(example):
    """The error that an example gets, "" when it parses."""
    try:
        parse(example)
    except QueryError as refused:
        return str(refused)
    return ""


@pytest.mark.parametrize("example", [one for one in EXAMPLES if not refusal(one)])
def test_a_construct_that_parses_also_runs(example):
    """Each example of the page over the data set gives lines or series, or the data's own fault."""
    query = parse(show(parse(example)).replace('"shop"', '"checkout"'))
    source = Documents(log_documents())
    if isinstance(query, tree.LogQuery):
        found = logs.select(query, source, since=START, until=END, limit=1000)
        assert found.warnings == []
    else:
        # Lines that are no JSON, and series that meet twice, are faults of the data.
        with contextlib.suppress(PipelineError):
            metrics.evaluate_range(query, source, start=START, end=END, step=300 * SECOND)


def test_the_page_has_the_errors_of_the_others():
    """What is refused stands in the table with its sentence, and there is something refused."""
    refused = [refusal(example) for example in EXAMPLES if refusal(example)]
    assert len(refused) == 8
    assert [text for text in refused if text not in PAGE] == []
