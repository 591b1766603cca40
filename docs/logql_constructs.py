"""
Every construct of LogQL with an example: `generate.py` parses each and writes what came of it.

A row is (construct, example, note). What is refused is refused with the sentence in the table, so
the page cannot promise what the parser does not take.
"""

from typing import Final

_C: Final = '{service_name="shop"}'
_R: Final = f"count_over_time({_C} [5m])"

CONSTRUCTS: Final[dict[str, tuple[tuple[str, str, str], ...]]] = {
    "Selecting streams": (
        ("equal, not equal", '{service_name="shop", k8s_pod_name!="p"}', ""),
        ("regular expression", '{service_name=~"shop|cart"}', "RE2, the whole value"),
        ("nothing that must be there", '{service_name=~".*"}', ""),
        ("comment", f"{_C} # the shop", ""),
    ),
    "Filtering lines": (
        ("contains, does not", f'{_C} |= "card" != "test"', "case counts"),
        ("one of several", f'{_C} |= "card" or "bank"', ""),
        ("regular expression", f'{_C} |~ "(?i)declined" !~ "test$"', "RE2, anywhere"),
        ("pattern", f'{_C} |> "order <_> done" !> "order 1<_>"', "the whole line"),
        ("address in the line", f'{_C} |= ip("10.0.0.0/8")', "IPv4 and IPv6"),
    ),
    "Finding labels in lines": (
        ("JSON", f"{_C} | json", "arrays are left out"),
        ("JSON, some fields", f'{_C} | json id="order.items[0].id", amount', ""),
        ("logfmt", f"{_C} | logfmt --strict --keep-empty", ""),
        ("logfmt, some fields", f'{_C} | logfmt took="took_ms"', ""),
        ("regular expression", f"{_C} | regexp `(?P<verb>[A-Z]+)`", "named groups"),
        ("pattern", f'{_C} | pattern "<verb> <_> <status>"', ""),
        ("unpack", f"{_C} | unpack", "`_entry` is the line"),
    ),
    "Filtering by labels": (
        ("text", f'{_C} | json | region="eu", user!~"test.*"', "an absent label is empty"),
        ("number", f"{_C} | json | amount > 100.5", "an absent label drops the line"),
        ("duration", f"{_C} | logfmt | took >= 1m30s", ""),
        ("size", f"{_C} | logfmt | size < 10KB", "KB is 1000, KiB 1024"),
        ("address", f'{_C} | logfmt | addr != ip("10.0.0.1-10.0.0.9")', ""),
        ("and, or, parentheses", f'{_C} | a="1" and (b="2" or c="3")', ""),
        ("lines that failed", f'{_C} | json | __error__=""', ""),
    ),
    "Changing lines and labels": (
        ("line_format", f"{_C} | json | line_format `{{{{.msg | upper}}}}`", "template, below"),
        ("label_format", f"{_C} | json | label_format a=b, c=`{{{{.d}}}}`", ""),
        ("drop", f'{_C} | drop a, b="x"', ""),
        ("keep", f"{_C} | keep a", ""),
        ("decolorize", f"{_C} | decolorize", ""),
        ("template with if", f"{_C} | line_format `{{{{if .a}}}}x{{{{end}}}}`", ""),
        ("template with range", f"{_C} | line_format `{{{{range .a}}}}{{{{end}}}}`", ""),
        ("template with a variable", f"{_C} | line_format `{{{{$x := .a}}}}`", ""),
    ),
    "Numbers over a window": (
        ("lines", f"rate({_C} [5m]) + count_over_time({_C} [5m])", ""),
        ("bytes", f"bytes_rate({_C} [5m]) + bytes_over_time({_C} [5m])", ""),
        ("nothing there", f"absent_over_time({_C} [5m])", ""),
        ("offset", f"rate({_C} [5m] offset 1h)", ""),
        ("unwrap", f"sum_over_time({_C} | json | unwrap amount [5m])", ""),
        ("unwrap, converted", f"max_over_time({_C} | json | unwrap duration(took) [5m])", ""),
        (
            "avg, min, max, stddev, stdvar, first, last",
            f"avg_over_time({_C} | json | unwrap amount [5m]) by (region)",
            "with `by` and `without`",
        ),
        ("quantile", f"quantile_over_time(0.95, {_C} | json | unwrap amount [5m])", ""),
        ("counter", f"rate_counter({_C} | json | unwrap total [5m])", ""),
        ("grouping of a count", f"count_over_time({_C} [5m]) by (region)", ""),
        ("count with unwrap", f"count_over_time({_C} | unwrap x [5m])", ""),
        ("subquery", f"rate({_C} [5m:1m])", ""),
    ),
    "Calculating with series": (
        ("sum, avg, min, max, count, stddev, stdvar", f"sum by (region) ({_R})", ""),
        ("topk, bottomk, approx_topk", f"topk(5, {_R})", "approx_topk is exact"),
        ("sort, sort_desc", f"sort_desc({_R})", ""),
        ("arithmetic", f"100 * ({_R} / {_R}) ^ 2 % 7", ""),
        ("comparison", f"{_R} > 5", "filters"),
        ("comparison as number", f"{_R} > bool 5", ""),
        ("and, or, unless", f"{_R} and {_R}", ""),
        ("on, ignoring", f"{_R} / on (service_name) {_R}", ""),
        ("group_left, group_right", f"{_R} / on (a) group_left (b) {_R}", ""),
        ("label_replace", f'label_replace({_R}, "a", "$1", "b", "(.*)")', ""),
        ("vector", "vector(1) + vector(1)", ""),
        ("variants", f"variants({_R})", ""),
        ("a function of PromQL", f"increase({_C} [5m])", ""),
    ),
}
"""Heading -> construct, example, what there is to say."""
