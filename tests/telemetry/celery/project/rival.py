"""The shop in a program that switches OpenTelemetry's own Celery instrumentation on."""

from celery.signals import worker_process_init
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from shop import app as app


@worker_process_init.connect(weak=False)
def switch_on(**_):
    CeleryInstrumentor().instrument()
