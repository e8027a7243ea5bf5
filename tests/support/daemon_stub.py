"""A stand-in for the daemon: a real HTTP server with scripted answers, for tests of the command line.

It keeps what it was asked. A streamed answer is a list of lines; `Hold` in it keeps the connection open until
the client leaves, and says when it did.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Reply:
    """A JSON answer with a status; `body` may be raw bytes instead."""

    body: Any
    status: int = 200


class Hold:
    """In a stream: nothing more is sent until the client has left."""


@dataclass(frozen=True)
class Stream:
    """Server-sent events, line by line; the connection is closed at the end."""

    lines: Sequence[str | Hold]


@dataclass(frozen=True)
class Asked:
    """One request that arrived."""

    method: str
    path: str
    body: Any = None


@dataclass
class DaemonStub:
    """Answers `"GET /api/status"` and the like from *answers*; what is not in it is 404 in our envelope."""

    answers: Mapping[str, Reply | Stream | Sequence[Reply | Stream]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    client_left: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._turns: dict[str, int] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(timeout=5)
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer_to(self, asked: Asked) -> Reply | Stream:
        """The scripted answer; of a sequence the next one, and its last again and again."""
        self.asked.append(asked)
        name = f"{asked.method} {asked.path.partition('?')[0]}"
        found = self.answers.get(name)
        if found is None:
            return Reply({"error": {"message": f"no route {name}", "code": "not_found"}}, 404)
        if isinstance(found, Reply | Stream):
            return found
        turn = self._turns.get(name, 0)
        self._turns[name] = turn + 1
        return found[min(turn, len(found) - 1)]


def _handler_for(stub: DaemonStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._answer(json.loads(raw) if raw else None)

        def _answer(self, body: Any) -> None:
            answer = stub.answer_to(Asked(self.command, self.path, body))
            if isinstance(answer, Stream):
                self._stream(answer)
                return
            raw = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def _stream(self, answer: Stream) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for line in answer.lines:
                if isinstance(line, Hold):
                    # The client sends nothing more: a read ends when it leaves, by a reset where it had
                    # not read everything.
                    with suppress(ConnectionResetError):
                        self.connection.recv(1)
                    stub.client_left.set()
                    return
                self.wfile.write(f"{line}\n".encode())
                self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
            pass

    return Handler


def words(*pieces: str, done: bool = True) -> list[str]:
    """The lines of a chat completion that streams *pieces*."""
    lines: list[str] = []
    for piece in pieces:
        event = {"choices": [{"index": 0, "delta": {"content": piece}}]}
        lines += [f"data: {json.dumps(event)}", ""]
    return [*lines, "data: [DONE]", ""] if done else lines
