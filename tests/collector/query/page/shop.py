"""A shop that sends OTLP: one checkout whose task fails after three retries, quiet traffic, hostile text."""

import hashlib
import time
import urllib.request

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

TRACE = "0af7651916cd43dd8448eb211c80319c"
TASK_ID = "5b1c02ce-77a0-4c1e-9a3d-20b1f0a1c2d9"
ORDER_ID = "ord-77120"
STACK = """Traceback (most recent call last):
  File "/srv/shop/billing/charge.py", line 87, in charge_card
    reply = gateway.charge(order, key=order.id)
  File "/usr/lib/python3.12/site-packages/httpx/_client.py", line 914, in send
    raise ReadTimeout(message)
httpx.ReadTimeout: timed out

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/usr/lib/python3.12/site-packages/celery/app/trace.py", line 453, in trace_task
    R = retval = fun(*args, **kwargs)
  File "/srv/shop/billing/charge.py", line 89, in charge_card
    raise GatewayTimeout(provider) from error
shop.errors.GatewayTimeout: acme-pay did not answer within 500 ms
"""
EVIL = (
    "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"
    "\x1b[31mred\x1b[0m \u202egnp.exe\u202c javascript:alert(1)"
)


def identity(name, size=8):
    """Bytes of an id, always the same for a name."""
    return hashlib.blake2b(name.encode(), digest_size=size).digest()


class Sender:
    """Sends spans and log records of one shop to an OTLP receiver over HTTP."""

    def __init__(self, address):
        self._address = address
        self.now = time.time_ns()

    def post(self, path, message):
        """One request; it must be acknowledged."""
        body = message.SerializeToString()
        headers = {"Content-Type": "application/x-protobuf"}
        url = f"http://{self._address}/v1/{path}"
        with urllib.request.urlopen(
            urllib.request.Request(url, body, headers), timeout=60
        ) as answer:
            assert answer.status == 200

    def spans(self, spans):
        """Spans as dictionaries: service, name, start and ms (from the start), and what else a span has."""
        message = ExportTraceServiceRequest()
        scopes = {}
        for each in spans:
            service = each["service"]
            if service not in scopes:
                resource = message.resource_spans.add()
                put(resource.resource, {"service.name": service, "service.version": "2.14.0"})
                scopes[service] = resource.scope_spans.add()
            start = self.now + round(each["start"] * 1e6)
            span = scopes[service].spans.add(
                trace_id=bytes.fromhex(each["trace"]),
                span_id=identity(each["id"]),
                parent_span_id=identity(each["parent"]) if each.get("parent") else b"",
                name=each["name"],
                kind=getattr(Span, f"SPAN_KIND_{each.get('kind', 'INTERNAL')}"),
                start_time_unix_nano=start,
                end_time_unix_nano=start + round(each["ms"] * 1e6),
            )
            put(span, each.get("attributes", {}))
            if each.get("failed"):
                span.status.code = Status.STATUS_CODE_ERROR
            if error := each.get("exception"):
                event = span.events.add(name="exception", time_unix_nano=span.end_time_unix_nano)
                kind, text, stack = error
                put(event, {"exception.type": kind, "exception.message": text})
                put(event, {"exception.stacktrace": stack} if stack else {})
        self.post("traces", message)

    def logs(self, logs):
        """Log records as dictionaries: service, at (ms from the start), level, text, span and trace."""
        message = ExportLogsServiceRequest()
        levels = {"DEBUG": 5, "INFO": 9, "WARNING": 13, "ERROR": 17}
        for each in logs:
            resource = message.resource_logs.add()
            put(resource.resource, {"service.name": each["service"]})
            record = resource.scope_logs.add().log_records.add(
                time_unix_nano=self.now + round(each["at"] * 1e6),
                severity_number=levels[each["level"]],
                event_name=each.get("event", ""),
            )
            record.body.string_value = each["text"]
            if "trace" in each:
                record.trace_id = bytes.fromhex(each["trace"])
                record.span_id = identity(each["span"])
            put(record, each.get("attributes", {}))
        self.post("logs", message)


def put(message, attributes):
    """Attributes of text and numbers."""
    for key, value in attributes.items():
        kind = {str: "string_value", int: "int_value", float: "double_value"}[type(value)]
        setattr(message.attributes.add(key=key).value, kind, value)


def checkout(sender):
    """A request that publishes a task which fails in four attempts, after 12 s in the queue."""
    task = {
        "celery.task.id": TASK_ID,
        "celery.task.name": "billing.charge_card",
        "messaging.destination.name": "billing",
        "celery.worker.hostname": "billing@w2",
        "order.id": ORDER_ID,
    }
    begin = -40_000
    api = {"trace": TRACE, "service": "shop-api"}
    spans = [
        {
            **api,
            "id": "root",
            "name": "POST /checkout",
            "kind": "SERVER",
            "start": begin,
            "ms": 548,
            "attributes": {
                "http.route": "/checkout",
                "request.id": "req-5d0e11",
                "correlation.id": "corr-9",
            },
        },
        {**api, "id": "cart", "parent": "root", "name": "load cart", "start": begin + 8, "ms": 31},
        {
            "trace": TRACE,
            "service": "risk-api",
            "id": "score",
            "parent": "root",
            "name": "POST /score",
            "kind": "SERVER",
            "start": begin + 44,
            "ms": 298,
        },
        {
            "trace": TRACE,
            "service": "risk-api",
            "id": "infer",
            "parent": "score",
            "name": "infer credit-risk 7.3",
            "start": begin + 92,
            "ms": 214,
        },
        {
            **api,
            "id": "insert",
            "parent": "root",
            "name": "INSERT orders",
            "kind": "CLIENT",
            "start": begin + 352,
            "ms": 41,
        },
        {
            **api,
            "id": "send",
            "parent": "root",
            "name": "send billing.charge_card",
            "kind": "PRODUCER",
            "start": begin + 398,
            "ms": 16,
            "attributes": {"celery.task.id": TASK_ID},
        },
    ]
    logs = [
        {
            "service": "shop-api",
            "at": begin + 4,
            "level": "INFO",
            "text": "checkout received",
            "trace": TRACE,
            "span": "root",
            "attributes": {"items": 3, "total": 129.9},
        },
        {
            "service": "risk-api",
            "at": begin + 306,
            "level": "WARNING",
            "text": "inference slow",
            "trace": TRACE,
            "span": "infer",
            "attributes": {"model": "credit-risk"},
        },
    ]
    for number, start in enumerate((12_560, 15_170, 19_790, 28_330)):
        last = number == 3
        attempt = f"run{number}"
        wait = {"celery.task.wait_ms": 12_000.0} if number == 0 else {}
        kind = "GatewayTimeout" if last else "ReadTimeout"
        spans.append(
            {
                "trace": TRACE,
                "service": "worker",
                "id": attempt,
                "parent": "send",
                "name": "run billing.charge_card",
                "kind": "CONSUMER",
                "start": begin + start,
                "ms": 610,
                "failed": True,
                "attributes": {**task, **wait, "celery.task.retries": number},
                "exception": (kind, "acme-pay did not answer within 500 ms", STACK),
            }
        )
        spans.append(
            {
                "trace": TRACE,
                "service": "worker",
                "id": f"post{number}",
                "parent": attempt,
                "name": "POST api.acme-pay.example/charge",
                "kind": "CLIENT",
                "start": begin + start + 26,
                "ms": 502,
                "failed": True,
            }
        )
        shared = {"service": "worker", "trace": TRACE, "span": attempt}
        known = {**task, "celery.task.retries": number}
        logs.append(
            {
                **shared,
                "at": begin + start,
                "level": "INFO",
                "text": "task started",
                "event": "celery.task.started",
                "attributes": {
                    **known,
                    "celery.task.state": "STARTED",
                    "celery.task.wait_ms": 12_000.0,
                },
            }
        )
        state, event = ("FAILURE", "failed") if last else ("RETRY", "retried")
        logs.append(
            {
                **shared,
                "at": begin + start + 609,
                "level": "ERROR" if last else "WARNING",
                "text": "charge failed, giving up" if last else f"retry {number + 1} of 3",
                "event": f"celery.task.{event}",
                "attributes": {
                    **known,
                    "celery.task.state": state,
                    "error.type": kind,
                    "exception.type": kind,
                    "exception.message": "acme-pay did not answer within 500 ms",
                    "exception.stacktrace": STACK,
                },
            }
        )
    sender.spans(spans)
    sender.logs(logs)


def traffic(sender, count=30):
    """Requests that go well."""
    names = ("GET /products", "GET /orders/{id}", "POST /score", "catalog.sync")
    sender.spans(
        {
            "trace": identity(f"quiet{n}", 16).hex(),
            "service": "shop-api" if n % 3 else "risk-api",
            "id": f"quiet{n}",
            "name": names[n % 4],
            "kind": "SERVER",
            "start": -1000.0 * n - 90_000,
            "ms": 8 + 13 * n,
        }
        for n in range(count)
    )


def large(sender, count=10_000):
    """One trace of so many spans, of which the last but ten failed; its id."""
    trace = identity("large", 16).hex()
    for first in range(0, count, 2000):
        sender.spans(
            {
                "trace": trace,
                "service": "batch-jobs",
                "id": f"large{n}",
                "parent": f"large{n - 1 if n % 50 else 0}" if n else "",
                "name": f"item {n}" if n else "batch reprice",
                "start": -30_000 + n,
                "ms": 20_000 - n if n % 50 == 0 else 5,
                "failed": n == count - 10,
            }
            for n in range(first, min(first + 2000, count))
        )
    return trace
