"""Hypothesis strategies for well-typed TraceQL trees."""

from hypothesis import strategies as st

from collector.query.traceql.tree import (
    FUNCTIONS,
    INTRINSICS,
    KINDS,
    STATUSES,
    Aggregate,
    Attribute,
    Binary,
    By,
    Coalesce,
    Compare,
    Filter,
    Intrinsic,
    Literal,
    Metrics,
    Query,
    Rank,
    ScalarFilter,
    Select,
    SpansetOperation,
    Type,
    Unary,
    Wrapped,
)

NUMBERS = (Type.INT, Type.FLOAT, Type.DURATION)
COMPARISONS = ("=", "!=", "<", "<=", ">", ">=")
STRUCTURAL = [prefix + op for prefix in ("", "!", "&") for op in (">", ">>", "<", "<<", "~")]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
names = st.sampled_from(
    ["a", "http.route", "a b", 'q"q', "\\", "5x", "span.x", "x/y-z*", "ünï"]
) | (texts.filter(bool))
int64 = st.integers(-(2**63), 2**63 - 1)
literals = st.one_of(
    st.builds(Literal, st.just(Type.STRING), texts),
    st.builds(Literal, st.just(Type.INT), int64),
    st.builds(Literal, st.just(Type.FLOAT), st.floats(allow_nan=False, allow_infinity=False)),
    st.builds(Literal, st.just(Type.DURATION), int64),
    st.builds(Literal, st.just(Type.BOOL), st.booleans()),
    st.builds(Literal, st.just(Type.STATUS), st.sampled_from(STATUSES)),
    st.builds(Literal, st.just(Type.KIND), st.sampled_from(KINDS)),
)
numbers = literals.filter(lambda literal: literal.type in NUMBERS)
attributes = st.builds(
    Attribute,
    st.sampled_from([None, "span", "resource", "event", "link", "instrumentation"]),
    names,
)
intrinsics = st.builds(Intrinsic, st.sampled_from(sorted(INTRINSICS)))
fields = attributes | intrinsics
measured = attributes | intrinsics.filter(lambda field: INTRINSICS[field.name] in NUMBERS)


def arithmetic(leaves):
    """Numbers and what is computed of them."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(Binary, st.sampled_from(list("+-*/%^")), inner, inner),
            st.builds(
                Unary, st.just("-"), inner.filter(lambda part: not isinstance(part, Literal))
            ),
        ),
        max_leaves=5,
    )


comparisons = st.one_of(
    st.builds(Binary, st.sampled_from(COMPARISONS), arithmetic(numbers | measured), numbers),
    st.builds(Binary, st.sampled_from(("=", "!=")), attributes, literals),
    st.builds(Binary, st.sampled_from(("=", "!=")), fields, st.just(Literal(Type.NIL, None))),
    st.builds(
        Binary,
        st.sampled_from(("=~", "!~")),
        attributes,
        st.builds(Literal, st.just(Type.STRING), st.sampled_from(["", "a.*", "(?i)x|y", "\\d+"])),
    ),
)
conditions = st.recursive(
    comparisons | attributes,
    lambda inner: st.one_of(
        st.builds(Binary, st.sampled_from(("&&", "||")), inner, inner),
        st.builds(Unary, st.just("!"), inner),
    ),
    max_leaves=6,
)
filters = st.builds(Filter, st.none() | conditions)
scalar_filters = st.builds(
    ScalarFilter,
    st.sampled_from(COMPARISONS),
    arithmetic(
        st.just(Aggregate("count"))
        | st.builds(Aggregate, st.sampled_from(["avg", "min", "max", "sum"]), measured)
    ),
    arithmetic(numbers),
)
later = st.one_of(
    filters,
    st.builds(By, fields),
    st.just(Coalesce()),
    st.builds(Select, st.lists(fields, min_size=1, max_size=3).map(tuple)),
    scalar_filters,
)
spansets = st.recursive(
    filters,
    lambda inner: st.one_of(
        st.builds(SpansetOperation, st.sampled_from(("&&", "||", *STRUCTURAL)), inner, inner),
        st.builds(lambda first, second: Wrapped((first, second)), inner, later),
    ),
    max_leaves=4,
)


@st.composite
def metrics(draw):
    """Any metrics function."""
    function = draw(st.sampled_from([*FUNCTIONS, "compare"]))
    if function == "compare":
        start = draw(st.integers(0, 2**62))
        times = draw(st.sampled_from([(0, 0), (start, start + 1)]))
        return Compare(draw(filters), draw(st.integers(0, 100)), *times)
    by = draw(st.lists(fields, max_size=2).map(tuple))
    field = None if function in ("rate", "count_over_time") else draw(measured)
    quantiles = ()
    if function == "quantile_over_time":
        quantiles = tuple(draw(st.lists(st.floats(0, 1), min_size=1, max_size=3)))
    return Metrics(function, field, quantiles, by)


@st.composite
def queries(draw):
    """Any query that is answered."""
    stages = (draw(spansets), *draw(st.lists(later, max_size=3)))
    found = draw(st.none() | metrics())
    rank = st.builds(Rank, st.sampled_from(["topk", "bottomk"]), st.integers(1, 1000))
    ranks = tuple(draw(st.lists(rank, max_size=1))) if found is not None else ()
    hints = draw(st.lists(st.tuples(st.sampled_from(["most_recent", "x"]), literals), max_size=2))
    return Query(stages, found, ranks, tuple(hints))
