"""
A stand-in for language models on this machine: HTTP, latency, errors, token counts.

    python examples/lead_batch/model.py --port 8400

What it does wrong depends on the text alone, so that runs can be compared: some texts are refused
at first with 429 and a Retry-After, with 500, or not answered in time; some get an answer that is
not sure; a few are never answered. It prints its address, and ends when its standard input does.
"""

import argparse
import contextlib
import http.server
import json
import random
import threading
import time
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

LANGUAGES = ("zulu", "sotho", "tsonga", "venda", "afrikaans", "english", "french", "shona")
BUSY, BROKEN, SLOW, UNSURE, REFUSED = range(5)
KINDS = 16
"""A text is of one of so many kinds; all from the sixth on get a good answer."""
HANG_S = 5.0


class Model(http.server.BaseHTTPRequestHandler):
    """POST /v1/chat with {"provider", "model", "messages"}."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[Counter[str]] = Counter()
    latency_s = 0.03

    def do_POST(self) -> None:
        """Answer, or do what this text makes it do."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = request["messages"][-1]["content"]
        self.asked[text] += 1
        first = self.asked[text] == 1
        number = zlib.crc32(text.encode())
        kind = number % KINDS
        time.sleep(random.uniform(0.5, 2) * self.latency_s)
        if kind == REFUSED:
            self._answer(400, {"error": "content_filter"})
        elif kind == BUSY and first:
            self._answer(429, {"error": "rate_limit"}, {"Retry-After": "1"})
        elif kind == BROKEN and first:
            self._answer(500, {"error": "overloaded"})
        else:
            if kind == SLOW and first:
                time.sleep(HANG_S)
            self._answer(200, self._classified(request, number, unsure=kind == UNSURE and first))

    def _classified(self, request: dict[str, Any], number: int, *, unsure: bool) -> dict[str, Any]:
        language = LANGUAGES[number // KINDS % len(LANGUAGES)]
        confidence = 0.41 if unsure else 0.8 + number % 20 / 100
        content = json.dumps({"language": language, "confidence": confidence})
        words = sum(len(message["content"]) for message in request["messages"])
        return {
            "id": f"chat-{number:08x}",
            "model": f"{request['model']}-stand-in",
            "content": content,
            "finish_reason": "stop",
            "usage": {"input_tokens": words // 4, "output_tokens": len(content) // 4},
        }

    def _answer(
        self, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except ConnectionError:
            self.close_connection = True  # the client did not wait

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer as a language model would.")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds (default: 0.03)")
    given = parser.parse_args()
    Model.latency_s = given.latency
    server = http.server.ThreadingHTTPServer(("127.0.0.1", given.port), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        input()


if __name__ == "__main__":
    main()
