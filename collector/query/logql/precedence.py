"""The words of metric queries: how strongly operators bind, and what each function is."""

from typing import Final

PRECEDENCE: Final = {
    "or": 1,
    "and": 2,
    "unless": 2,
    **dict.fromkeys(("==", "!=", ">", ">=", "<", "<="), 3),
    **dict.fromkeys(("+", "-"), 4),
    **dict.fromkeys(("*", "/", "%"), 5),
    "^": 6,
}
"""Operator -> how strongly it binds; only `^` groups from the right."""
LINES: Final = frozenset({"rate", "count_over_time", "bytes_rate", "bytes_over_time"})
"""Range aggregations over lines."""
VALUES: Final = frozenset(
    {
        "rate_counter",
        *(
            f"{word}_over_time"
            for word in (
                "sum",
                "avg",
                "min",
                "max",
                "stddev",
                "stdvar",
                "first",
                "last",
                "quantile",
            )
        ),
    }
)
"""Range aggregations over the numbers that `unwrap` finds."""
BOTH: Final = frozenset({"rate", "absent_over_time"})
"""Range aggregations over either."""
RANGES: Final = LINES | VALUES | BOTH
GROUPED_RANGES: Final = VALUES - {"sum_over_time", "rate_counter"}
"""Range aggregations that take `by` and `without` themselves."""
COUNTED: Final = frozenset({"topk", "bottomk", "approx_topk"})
SORTS: Final = frozenset({"sort", "sort_desc"})
VECTORS: Final = (
    frozenset({"sum", "avg", "min", "max", "count", "stddev", "stdvar"}) | COUNTED | SORTS
)
FUNCTIONS: Final = RANGES | VECTORS | {"vector", "label_replace"}
ALONE: Final = ("json", "logfmt", "unpack", "decolorize")
"""Stages that are complete with their name."""
