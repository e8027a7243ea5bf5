"""How the scripted engine speaks HTTP: a few lines of its own, so that it can speak it wrongly on purpose."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any, Protocol

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 503: "Service Unavailable"}


def pause(seconds: float) -> None:
    """Let *seconds* pass in this thread."""
    if seconds > 0:
        threading.Event().wait(seconds)


def is_there(file: Path | None) -> bool:
    """What a knob waits for has come, or it waits for nothing."""
    return file is None or file.exists()


class Answerer(Protocol):
    """The engine behind a connection."""

    knobs: argparse.Namespace

    def answer(self, c: Connection, request: Request) -> None:
        """Answer one request."""
        ...

    def disconnected(self) -> None:
        """A client left before its answer was complete."""
        ...


class Request:
    """One parsed request."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        try:
            self.json: Any = json.loads(body) if body else {}
        except ValueError:
            self.json = {}


class HangupError(Exception):
    """The connection ends here."""


class Connection:
    """Reads requests from one socket and writes answers in the framing the knobs ask for."""

    def __init__(self, engine: Answerer, sock: socket.socket) -> None:
        self.engine = engine
        self.knobs = engine.knobs
        self.sock = sock
        self.buffer = b""
        self.counts = False
        self.sent = 0

    def serve(self) -> None:
        """Answer until the connection ends."""
        try:
            with self.sock:
                while (request := self.read()) is not None:
                    self.engine.answer(self, request)
                    if self.knobs.http10 or request.headers.get("connection", "").lower() == "close":
                        return
        except HangupError:
            return
        except OSError:
            if self.counts:  # a probe that does not read a 404 to its end resets the connection as well
                self.engine.disconnected()

    def more(self) -> None:
        """Read on; raises HangupError at the end of input."""
        data = self.sock.recv(65536)
        if not data:
            raise HangupError
        self.buffer += data

    def read(self) -> Request | None:
        """The next request, None when the client is done."""
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        method, path = lines[0].split(" ")[:2]
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return Request(method, path, headers, self.read_chunked())
        length = int(headers.get("content-length", "0"))
        while len(self.buffer) < length:
            self.more()
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Request(method, path, headers, body)

    def read_chunked(self) -> bytes:
        """A chunked body, trailers dropped."""
        body = b""
        while True:
            while b"\r\n" not in self.buffer:
                self.more()
            size_text, self.buffer = self.buffer.split(b"\r\n", 1)
            size = int(size_text.split(b";")[0], 16)
            while len(self.buffer) < size + 2:
                self.more()
            body += self.buffer[:size]
            self.buffer = self.buffer[size + 2 :]
            if size == 0:
                return body

    def head(self, status: int, fields: dict[str, str]) -> bytes:
        """A response head."""
        version = "HTTP/1.0" if self.knobs.http10 else "HTTP/1.1"
        lines = [f"{version} {status} {REASONS.get(status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def whole(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        """A complete answer."""
        fields = {"Content-Type": content_type}
        if not self.knobs.http10:
            fields["Content-Length"] = str(len(body))
        self.sock.sendall(self.head(status, fields))
        self.body_bytes(body)

    def begin_stream(self) -> None:
        """The head of an event stream."""
        fields = {"Content-Type": "text/event-stream"}
        if not self.knobs.http10:
            fields["Transfer-Encoding"] = "chunked"
        self.sock.sendall(self.head(200, fields))

    def event(self, data: bytes, *, half: bool = False) -> None:
        """One event of a stream; *half* sends its first half and hangs up."""
        payload = b"data: " + data + b"\n\n"
        if not self.knobs.http10:
            payload = f"{len(payload):x}\r\n".encode() + payload + b"\r\n"
        if half:
            self.body_bytes(payload[: len(payload) // 2])
            raise HangupError
        self.body_bytes(payload)

    def end_stream(self) -> None:
        """The proper end."""
        if not self.knobs.http10:
            self.body_bytes(b"0\r\n\r\n")

    def body_bytes(self, data: bytes) -> None:
        """Send body bytes, dying where the script says so."""
        limit = self.knobs.die_after_bytes
        if limit is not None and self.counts and self.sent + len(data) >= limit:
            self.sock.sendall(data[: limit - self.sent])
            os.kill(os.getpid(), signal.SIGKILL)
        self.sock.sendall(data)
        self.sent += len(data)

    def wait(self, seconds: float) -> None:
        """Let time pass; raises ConnectionResetError as soon as the client has gone."""
        self.sock.settimeout(max(seconds, 0.001))
        try:
            if not self.sock.recv(1, socket.MSG_PEEK):
                raise ConnectionResetError
            pause(seconds)  # a pipelined request: no way to see the client leave
        except TimeoutError:
            pass
        finally:
            self.sock.settimeout(None)
