"""
Jaeger's query API below `/jaeger/api`: what Grafana's Jaeger data source and Jaeger's own UI ask.

`routes` reads parameters and writes envelopes, `search` finds traces, `shape` turns OTLP into
Jaeger's spans. It has a path of its own because Tempo's API owns `/api/traces/{id}` with another body.
"""
