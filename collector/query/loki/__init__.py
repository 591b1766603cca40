"""
Loki's HTTP API over our stores, as a stock Grafana asks it.

`api` has the routes, `parameters` reads what they are asked, `answers` writes the shapes that the
data source accepts, `labels` and `fields` say what there is to ask for.
"""
