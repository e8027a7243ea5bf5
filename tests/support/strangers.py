"""Clients of every temper, on bare sockets: good ones, and those that leave, dawdle, or send nonsense."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections import Counter
from typing import Final

NONSENSE: Final = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{\"model\":",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n{",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
)  # fmt: skip
"""Each is refused, but for the last: that one's body never comes."""


def asked(model: str, *, stream: bool, words: int = 8) -> bytes:
    """A chat request of *model*."""
    messages = [{"role": "user", "content": "hello"}]
    body = json.dumps({"model": model, "stream": stream, "max_tokens": words, "messages": messages}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: modelyard\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


class Stranger:
    """One client that comes again and again, each time with another temper; `said` counts what came of it."""

    def __init__(self, port: int, model: str, seed: int, said: Counter[str]) -> None:
        self._port = port
        self._model = model
        self._dice = random.Random(seed)
        self._said = said

    async def come(self, until: float) -> None:
        """Until the loop's clock says *until*."""
        now = asyncio.get_running_loop().time
        while now() < until:
            temper = self._dice.choice(
                ("plain", "plain", "stream", "stream", "leaves", "dawdles", "nonsense")
            )
            try:
                self._said[temper + " " + await getattr(self, f"_{temper}")()] += 1
            except (ConnectionError, asyncio.IncompleteReadError):
                self._said[temper + " cut"] += 1

    async def _plain(self) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for _ in range(self._dice.randrange(1, 5)):
                writer.write(asked(self._model, stream=False))
                status, _ = await read_answer(reader)
                if status != 200:
                    return str(status)
            return "200"
        finally:
            await close(writer)

    async def _stream(self) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(asked(self._model, stream=True, words=30))
            status, body = await read_answer(reader)
            return f"{status}" if body.endswith(b"data: [DONE]\n\n") else "without an end"
        finally:
            await close(writer)

    async def _leaves(self) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(asked(self._model, stream=True, words=200))
        await reader.read(self._dice.choice((1, 300, 2000)))
        writer.transport.abort()
        return "left"

    async def _dawdles(self) -> str:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=2048)
        try:
            writer.write(asked(self._model, stream=True, words=100))
            body = b""
            while not body.endswith(b"0\r\n\r\n"):
                await pause(0.02)
                more = await reader.read(1024)
                if not more:
                    return "cut"
                body = body[-8:] + more
            return "200"
        finally:
            await close(writer)

    async def _nonsense(self) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(self._dice.choice(NONSENSE))
            async with asyncio.timeout(2):
                return (await reader.readuntil(b"\r\n")).split(b" ")[1].decode()
        except TimeoutError:
            return "left waiting"
        finally:
            writer.transport.abort()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    if b"\r\ncontent-length: " in head:
        size = int(head.split(b"\r\ncontent-length: ", 1)[1].split(b"\r\n", 1)[0])
        return status, await reader.readexactly(size)
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return status, body


async def close(writer: asyncio.StreamWriter) -> None:
    """Leave politely; who was left first is left in peace."""
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionError:
        pass


async def pause(seconds: float) -> None:
    """A client that does nothing: that is its part."""
    await asyncio.sleep(seconds)  # noqa: TID251 - in another process than the daemon, whose clock this is
