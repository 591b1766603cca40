"""The shop without the wrapper: one call in code."""

import os

os.environ.pop("OTEL_SERVICE_NAME", None)

import shop

from telemetry.instrumentation import celery

app = shop.app
app.main = "coded-shop"
celery.instrument(app, mode="link", resources=True, kwargs_map={"customer": "tenant.id"})
