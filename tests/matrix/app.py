"""
A FastAPI, a Celery and a Django application in one file, which know nothing of telemetry.

It prints what they answer. The matrix runs it before the wheel is installed and afterwards under the
wrapper: both must print the same.
"""

import asyncio
import json
import sys


async def call(app, path, kind="http"):
    """One request, as an ASGI server makes it: status and body."""
    scope = {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"q=1",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
    }
    sent = []
    once = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive():
        for message in once:
            return message
        await asyncio.sleep(3600)
        return None

    async def send(message):
        sent.append(message)

    try:
        await app(scope, receive, send)
    except ZeroDivisionError:
        return [500, "ZeroDivisionError"]
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return [sent[0]["status"], body.decode()]


def fastapi_answers():
    from fastapi import BackgroundTasks, FastAPI, HTTPException
    from fastapi.middleware.cors import CORSMiddleware

    done = []
    app = FastAPI(on_startup=[lambda: done.append("started")])
    app.add_middleware(CORSMiddleware, allow_origins=["*"])

    @app.get("/items/{item_id}")
    def item(item_id: int, background: BackgroundTasks):
        background.add_task(done.append, item_id)
        return {"item": item_id}

    @app.get("/gone")
    async def gone():
        raise HTTPException(410, "gone")

    @app.get("/bug")
    async def bug():
        return 1 / 0

    async def all_of_them():
        paths = ("/items/1", "/items/x", "/gone", "/nowhere", "/bug", "/openapi.json")
        return [await call(app, path) for path in paths]

    return [*asyncio.run(all_of_them()), done]


def celery_answers():
    from celery import Celery, chain
    from celery.contrib.testing.worker import start_worker

    app = Celery("shop", broker="memory://", backend="cache+memory://")

    @app.task(name="add")
    def add(x, y):
        return x + y

    @app.task(name="fail")
    def fail():
        return 1 / 0

    with start_worker(app, pool="solo", perform_ping_check=False):
        total = chain(add.s(1, 2), add.s(3)).delay().get(timeout=60)
        failed = fail.delay()
        failed.get(timeout=60, propagate=False)
    return [total, failed.state]


def django_answers():
    import django
    from django.conf import settings
    from django.core.handlers.asgi import ASGIHandler
    from django.http import HttpResponse
    from django.urls import path

    urls = [path("hello/", lambda request: HttpResponse(f"hello {request.GET['q']}"))]
    settings.configure(ROOT_URLCONF=type("urls", (), {"urlpatterns": urls}), SECRET_KEY="x" * 50)
    django.setup()

    async def both():
        return [await call(ASGIHandler(), path) for path in ("/hello/", "/nowhere/")]

    return [[*answer[:1], answer[1][:20]] for answer in asyncio.run(both())]


if __name__ == "__main__":
    answers = {
        "fastapi": fastapi_answers,
        "celery": celery_answers,
        "django": django_answers,
    }
    sys.stdout.write(json.dumps({name: answer() for name, answer in answers.items()}) + "\n")
