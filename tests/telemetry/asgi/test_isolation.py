"""Thousands of requests at once: no id in a wrong place."""

import asyncio
import random
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, Header
from starlette.responses import StreamingResponse

import telemetry
from telemetry.instrumentation.asgi import CorrelationIdMiddleware
from tests.telemetry.asgi.driving import ask

REQUESTS = 2000
TOGETHER = 250
Tenant = Annotated[str, Header()]
logger = telemetry.get_logger("app")


def application():
    app = FastAPI(telemetry={"operation_spans": False})

    def organisation(tenant: Tenant):
        telemetry.set_request_context(tenant_id=tenant)

    async def user(tenant: Tenant):
        await asyncio.sleep(0)
        telemetry.bind_context(user_id=f"user of {tenant}")

    async def later(tenant):
        await asyncio.sleep(0)
        logger.info("later", of=tenant)

    @app.get("/async", dependencies=[Depends(organisation), Depends(user)])
    async def endpoint(
        background: BackgroundTasks,
        tenant: Tenant,
    ):
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)
        with telemetry.log_context(operation=f"op of {tenant}"), telemetry.span("work", of=tenant):
            await asyncio.sleep(0)
            logger.info("work", of=tenant)
        await asyncio.gather(*(asyncio.create_task(child(tenant)) for _ in range(2)))
        background.add_task(later, tenant)
        return telemetry.current_context()

    async def child(tenant):
        await asyncio.sleep(0)
        logger.info("child", of=tenant)

    @app.get("/sync", dependencies=[Depends(organisation)])
    def plain(tenant: Tenant):
        telemetry.set_request_context(user_id=f"user of {tenant}")
        logger.info("sync", of=tenant)
        return telemetry.current_context()

    @app.get("/stream", dependencies=[Depends(organisation), Depends(user)])
    async def stream(tenant: Tenant):
        async def pieces():
            for _ in range(3):
                await asyncio.sleep(0)
                logger.info("piece", of=tenant)
                yield b"x"

        return StreamingResponse(pieces())

    return app


def test_interleaved_requests_never_mix(captured):
    """A7: 2,000 requests of as many tenants, 250 at a time; each record has its own tenant's ids."""
    app = CorrelationIdMiddleware(application(), sample={"/stream": 0.5})
    rest = iter(range(REQUESTS))
    answers = {}

    async def client():
        for number in rest:
            tenant = f"t-{number}"
            headers = [("tenant", tenant), ("x-request-id", tenant), ("x-correlation-id", tenant)]
            path = ("/async", "/sync", "/stream")[number % 3 if number % 30 else 0]
            answers[tenant] = await ask(app, path, headers=headers)
        return telemetry.current_context()

    async def run():
        return await asyncio.gather(*(client() for _ in range(TOGETHER)))

    assert asyncio.run(run()) == [{}] * TOGETHER
    assert len(answers) == REQUESTS
    for tenant, answer in answers.items():
        assert (answer.status, answer["x-request-id"], answer["x-correlation-id"]) == (
            200,
            tenant,
            tenant,
        )
    records = [log for log in captured.logs if log["logger"] == "app"]
    assert len(records) > REQUESTS
    wrong = [
        record
        for record in [*records, *(span for span in captured.spans if span["name"] == "work")]
        if {
            record["attributes"].get(name) for name in ("tenant.id", "request.id", "correlation.id")
        }
        != {record["attributes"]["of"]}
        or record["attributes"]["user.id"] != f"user of {record['attributes']['of']}"
        or record["attributes"].get("operation.name", f"op of {record['attributes']['of']}")
        != f"op of {record['attributes']['of']}"
    ]
    assert wrong == []
    traces = {}
    for span in captured.spans:
        traces.setdefault(span["trace_id"], set()).add(span["attributes"]["tenant.id"])
    assert {len(tenants) for tenants in traces.values()} == {1}
    access = [log for log in captured.logs if log["logger"] == "telemetry.access"]
    assert {
        (log["attributes"]["tenant.id"] == log["attributes"]["request.id"]) for log in access
    } == {True}
    assert {log["trace_id"] for log in access} == set(traces)
