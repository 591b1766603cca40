"""
Tempo's HTTP API, as far as Grafana's Tempo data source asks for it.

`routes` is the way in. Each question is one module: `search`, `metrics`, `tags`, `traces`. They
share `candidates`, which reads a store within bounds, and `values`, the JSON of typed values. The
shapes are Tempo's to the letter: the data source reads `/api/search` and `/api/metrics/query` with
a reader that refuses a whole answer for one unknown field, and crashes on some values.
"""
