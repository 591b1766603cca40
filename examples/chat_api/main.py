r"""
A multi-tenant chat API: every line, span and answer of a request leads to all the others.

    opentelemetry-instrument --service_name chat-api uvicorn main:app --app-dir examples/chat_api

It is ordinary FastAPI code. The wrapper traces it, gives each request a request id and a
correlation id, returns both with every answer, and writes one record per request; health checks
leave nothing. What the application adds: who the request is for (`set_request_context`), how long a
flow takes (`LogContext`), and its log lines.

    curl -i -H 'X-Organization-ID: org-1' -H 'X-User-ID: u-1' -H 'X-Correlation-ID: order-77' \
         -d '{"text": "hello"}' -H 'content-type: application/json' \
         localhost:8000/conversations/c-9/messages
    collector trace order-77
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, Header, HTTPException, WebSocket
from fastapi.responses import StreamingResponse
from flows import Conversation, UnknownConversation, execute_flow, load
from pydantic import BaseModel

from telemetry import current_context, get_logger, log_context, set_request_context

app = FastAPI(title="chat")
logger = get_logger(__name__)


class Message(BaseModel):
    """What a user says."""

    text: str


def caller(
    x_organization_id: Annotated[str, Header()], x_user_id: Annotated[str | None, Header()] = None
) -> str:
    """Who asks; from here on each record of the request says so, also those of other threads."""
    set_request_context(organization_id=x_organization_id, user_id=x_user_id)
    return x_organization_id


Organization = Annotated[str, Depends(caller)]


def conversation(conversation_id: str, organization: Organization) -> Conversation:
    """The conversation of the path, if it is the caller's."""
    set_request_context(conversation_id=conversation_id)
    try:
        return load(organization, conversation_id)
    except UnknownConversation:
        logger.warning("conversation not found")
        raise HTTPException(404, "no such conversation") from None


Found = Annotated[Conversation, Depends(conversation)]


@app.post("/conversations/{conversation_id}/messages", status_code=201)  # noqa: FAST003 - read in conversation()
async def post_message(
    message: Message, found: Found, background: BackgroundTasks
) -> dict[str, object]:
    """Run the flow of the conversation for a message, and tell others later."""
    logger.info("message received", length=len(message.text))
    answer = await execute_flow(found, message.text)
    background.add_task(notify, found)
    return {"answer": answer, "context": current_context()}


def notify(found: Conversation) -> None:
    """Runs after the answer has gone out, in a worker thread, with the ids of the request."""
    logger.info("subscribers notified", subscribers=len(found.subscribers))


@app.get("/conversations/{conversation_id}/answer")  # noqa: FAST003 - read in conversation()
async def stream_answer(found: Found) -> StreamingResponse:
    """An answer in pieces, as a language model gives it."""

    async def pieces() -> AsyncIterator[str]:
        with log_context(operation="answer.stream"):
            for number, word in enumerate(found.script, 1):
                await asyncio.sleep(0)
                logger.debug("piece sent", number=number)
                yield word + " "
            logger.info("answer streamed", pieces=len(found.script))

    return StreamingResponse(pieces(), media_type="text/plain")


@app.websocket("/conversations/{conversation_id}/live")
async def live(websocket: WebSocket, conversation_id: str, organization: str) -> None:
    """The same over a websocket; `?organization=org-1` says who asks."""
    set_request_context(organization_id=organization, conversation_id=conversation_id)
    await websocket.accept()
    async for text in websocket.iter_text():
        answer = await execute_flow(load(organization, conversation_id), text)
        await websocket.send_text(answer)
    logger.info("client left")


@app.get("/reports/{name}")
def report(name: str, organization: Organization) -> dict[str, str]:
    """Has a bug, so that there is an unhandled exception to look at."""
    logger.info("report asked for", report=name)
    totals: dict[str, str] = {}
    return {"report": name, "total": totals[organization]}


@app.get("/health")
def health() -> dict[str, str]:
    """Asked every second by something; leaves no span and no record."""
    logger.info("healthy")
    return {"status": "ok"}
