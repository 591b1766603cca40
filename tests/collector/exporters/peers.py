"""Servers for the tests of the OTLP exporters: they remember what came and answer as they are told."""

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from collector.model import Host
from collector.stats import Stats

LOG_SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"


def host(name="otlp"):
    return Host(name, Stats(), logging.getLogger(f"test.{name}"))


def reply(status=200, body=b"", kind="application/x-protobuf", **headers):
    """An HTTP answer as bytes."""
    lines = [f"HTTP/1.1 {status} Word", f"content-length: {len(body)}", f"content-type: {kind}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def partial(rejected, text):
    response = ExportLogsServiceResponse()
    response.partial_success.rejected_log_records = rejected
    response.partial_success.error_message = text
    return response.SerializeToString()


class HttpPeer:
    """
    An HTTP server of few words.

    `answers` are the bytes that it sends, one after the other, the last one for ever; None ends the
    connection instead, a coroutine function is given the writer.
    """

    def __init__(self, *answers, ssl=None):
        self.answers = list(answers) or [reply()]
        self.ssl = ssl
        self.requests = []
        self.connections = 0
        self.writers = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.ssl)
        self.port = self.server.sockets[0].getsockname()[1]
        scheme = "https" if self.ssl else "http"
        self.url = (
            f"{scheme}://localhost:{self.port}" if self.ssl else f"http://127.0.0.1:{self.port}"
        )
        return self

    async def __aexit__(self, *exc):
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def serve(self, reader, writer):
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append((head[0], headers, body))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer is None:
                    break
                if callable(answer):
                    await answer(writer)
                    continue
                writer.write(answer)
                await writer.drain()
        writer.close()


class GrpcPeer:
    """
    A gRPC server for logs; `answer(request bytes, context)` makes the answer.

    It runs in threads: grpc.aio hands events of a loop that is gone to the loop of the next test,
    and only servers have events left when they are stopped.
    """

    def __init__(self, answer=None, credentials=None):
        self.answer = answer
        self.credentials = credentials
        self.requests = []
        self.metadata = []

    async def __aenter__(self):
        self.threads = ThreadPoolExecutor(4)
        self.server = grpc.server(self.threads)
        handler = grpc.unary_unary_rpc_method_handler(self.export)
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(LOG_SERVICE, {"Export": handler}),)
        )
        if self.credentials is None:
            self.port = self.server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self.server.add_secure_port("127.0.0.1:0", self.credentials)
        self.server.start()
        return self

    async def __aexit__(self, *exc):
        await asyncio.to_thread(self.server.stop(0).wait)
        self.threads.shutdown()

    def export(self, body, context):
        self.requests.append(body)
        self.metadata.append(dict(context.invocation_metadata()))
        return b"" if self.answer is None else self.answer(body, context)
