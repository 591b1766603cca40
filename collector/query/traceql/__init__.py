"""
TraceQL: text -> tokens -> typed tree -> checked tree -> functions over the spans of one trace.

`parse` is the way in; `spansets` evaluates a query over one trace, `metrics` over many spans,
`plan` says which of a query's conditions a store can take over. Nothing here reads a store or
knows HTTP. The language is the one of Grafana Tempo 3.0; docs/reference/traceql.md lists every
construct and what becomes of it.
"""
