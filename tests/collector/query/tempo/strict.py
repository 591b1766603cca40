"""
A reader as strict as the data source's, for `/api/search` and `/api/metrics/query`.

One field more than the protocol knows, a number out of its range or an attribute without a simple
value refuses or crashes the data source; so does one key with two kinds of values. Everything here
raises AssertionError with the place.
"""

import re

UINT32, UINT64, INT64 = range(2**32), range(2**64), range(-(2**63), 2**63)


def fields(found, known, where):
    """Each field is known, and has a value of its type; None in `known` means that it is read on."""
    assert isinstance(found, dict), where
    for name, item in found.items():
        assert name in known, f"{where}: unknown field {name}"
        check = known[name]
        assert check is None or check(item), f"{where}.{name}: {item!r}"


def text(item):
    return isinstance(item, str)


def integer(allowed):
    """Whole numbers of this range, as numbers; 64-bit ones as text too."""

    def check(item):
        if isinstance(item, str) and re.fullmatch("-?[0-9]+", item) and allowed.stop > 2**32:
            item = int(item)
        return type(item) is int and item in allowed

    return check


def double(item):
    return type(item) in (int, float) or item in ("NaN", "Infinity", "-Infinity")


VALUES = {
    "stringValue": text,
    "intValue": integer(INT64),
    "boolValue": lambda item: type(item) is bool,
    "doubleValue": double,
}
METRICS = {
    "inspectedTraces": integer(UINT32),
    "inspectedBytes": integer(UINT64),
    "totalBlocks": integer(UINT32),
    "completedJobs": integer(UINT32),
    "totalJobs": integer(UINT32),
    "totalBlockBytes": integer(UINT64),
    "inspectedSpans": integer(UINT64),
}


def attributes(found, where, kinds):
    """Simple values only; `kinds` collects them by key."""
    assert isinstance(found, list), where
    for one in found:
        fields(one, {"key": text, "value": None}, where)
        assert set(one) == {"key", "value"}, where
        assert len(one["value"]) == 1, f"{where}: {one}"
        fields(one["value"], VALUES, f"{where}.{one['key']}")
        (kind,) = one["value"]
        kinds.setdefault(one["key"], set()).add({"intValue": "doubleValue"}.get(kind, kind))
    keys = [one["key"] for one in found]
    assert len(keys) == len(set(keys)), f"{where}: a key twice"


def spanset(found, where, kinds):
    fields(found, {"spans": None, "matched": integer(UINT32), "attributes": None}, where)
    attributes(found.get("attributes", []), where, kinds)
    assert found["spans"], where
    for span in found["spans"]:
        known = {
            "spanID": lambda item: re.fullmatch("[0-9a-f]{16}", item),
            "name": text,
            "startTimeUnixNano": integer(UINT64),
            "durationNanos": integer(UINT64),
            "attributes": None,
        }
        fields(span, known, f"{where}.span")
        attributes(span.get("attributes", []), f"{where}.span", kinds)


def search(answer):
    """Refuse what the data source would refuse or crash on, in an answer of `/api/search`."""
    fields(answer, {"traces": None, "metrics": None}, "answer")
    fields(answer["metrics"], METRICS, "metrics")
    assert isinstance(answer["traces"], list)
    kinds = {}
    for trace in answer["traces"]:
        known = {
            "traceID": lambda item: re.fullmatch("[0-9a-f]{32}", item),
            "rootServiceName": text,
            "rootTraceName": text,
            "startTimeUnixNano": integer(UINT64),
            "durationMs": integer(UINT32),
            "spanSet": None,
            "spanSets": None,
            "serviceStats": None,
        }
        fields(trace, known, "trace")
        assert trace["spanSets"], "trace without spansets: no row in the spans table"
        for one in (trace["spanSet"], *trace["spanSets"]):
            spanset(one, trace["traceID"], kinds)
        for stats in trace["serviceStats"].values():
            fields(stats, dict.fromkeys(("spanCount", "errorCount"), integer(UINT32)), "stats")
    mixed = {key: found for key, found in kinds.items() if len(found) > 1}
    assert mixed == {}, "one key with two kinds of values"


def instant(answer):
    """The same for `/api/metrics/query`."""
    fields(answer, {"series": None, "metrics": None}, "answer")
    fields(answer["metrics"], METRICS, "metrics")
    for one in answer["series"]:
        fields(one, {"labels": None, "value": double, "promLabels": text}, "series")
        attributes(one["labels"], "labels", {})
