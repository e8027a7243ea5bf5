"""The relay matrix whole: upstream framing x client x committed or not x what passes x how it ends.

The rule is the table in docs/explanation/front.md. What must never be: an answer that looks complete and is
not.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import dataclass

import pytest

from tests.support.scripted_upstream import Received
from tests.support.wire import RawClient, Run, World

EVENT = b'data: {"id":"c","model":"m","choices":[{"delta":{"content":"hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
DOCUMENT = b'{"id":"c","model":"m","choices":[{"message":{"content":"hi"}}]}'
REQUEST = b'{"model":"m","stream":true}'

FRAMINGS = ("chunked", "length", "close", "1.0", "1.0 with length")
CLIENTS = ("1.1", "1.1 close", "1.0")
KINDS = ("events", "document")
ENDINGS = ("whole", "cut between", "cut inside")


@dataclass(frozen=True)
class Row:
    framing: str
    client: str
    committed: bool
    kind: str
    ending: str

    def __str__(self) -> str:
        when = "committed" if self.committed else "fresh"
        return f"{self.framing} to {self.client}, {when}, {self.kind} {self.ending}"

    @property
    def counted(self) -> bool:
        return self.framing.endswith("length")

    @property
    def http_1_1(self) -> bool:
        return self.client != "1.0"


ROWS = [
    Row(*row) for row in itertools.product(FRAMINGS, CLIENTS, (False, True), KINDS, ENDINGS)
]  # fmt: skip


def answer(row: Row, request: Received) -> None:
    """What the engine does."""
    kind = b"text/event-stream" if row.kind == "events" else b"application/json"
    whole = EVENT + DONE if row.kind == "events" else DOCUMENT
    cut = {"whole": len(whole), "cut between": len(EVENT), "cut inside": len(EVENT) - 20}[row.ending]
    if row.kind == "document" and row.ending != "whole":
        cut = 20
    version = b"1.0" if row.framing.startswith("1.0") else b"1.1"
    head = b"HTTP/%b 200 OK\r\ncontent-type: %b\r\n" % (version, kind)
    if row.framing == "chunked":
        request.send(head + b"transfer-encoding: chunked\r\n\r\n")
        if row.ending == "cut inside":
            request.send(b"%x\r\n%b" % (len(whole), whole[:cut]))
        else:
            request.chunk(whole[:cut])
            if row.ending == "whole":
                request.send(b"0\r\n\r\n")
    else:
        if row.counted:
            head += b"content-length: %d\r\n" % len(whole)
        request.send(head + b"\r\n" + whole[:cut])
    if row.ending != "whole" or row.framing != "chunked":
        request.end()


async def read(client: RawClient) -> tuple[int, dict[str, str], bytes, bool]:
    """(status, fields, content, whether it ended as something complete does)."""
    status, headers = await client.head()
    got = bytearray()
    try:
        if "content-length" in headers:
            got += await client.reader.readexactly(int(headers["content-length"]))
        elif "transfer-encoding" in headers:
            while part := await client.chunk():
                got += part
        else:
            got += await client.reader.read()
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return status, headers, bytes(got), False
    return status, headers, bytes(got), True


def framing_for(row: Row, status: int) -> str:
    """What the client must read the end by."""
    if row.committed:
        return "chunked" if row.http_1_1 else "close"
    if row.counted or status != 200:
        return "length"
    if row.kind == "document" and row.framing in ("close", "1.0"):
        return "length"  # it was read whole before a byte was sent
    return "chunked" if row.http_1_1 else "close"


def fate(row: Row) -> str:
    """`whole`, `said` (an error event, and a proper end), `refused` (a status), or `hard`."""
    if row.ending == "whole":
        return "whole"
    if row.committed and row.kind == "document":
        return "said"
    if row.kind == "document":
        return "refused" if row.framing in ("close", "1.0") else "hard"
    if row.ending == "cut inside":
        return "hard"
    return "hard" if row.counted and not row.committed else "said"


def error_in(event: bytes) -> str:
    """Code of the error event at the end of *event*."""
    found = json.loads(event.rpartition(b"data: ")[2])
    code: str = found["error"]["code"]
    return code


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_client_gets_all_of_it_or_knows_that_it_has_not(run: Run, row: Row) -> None:
    async def scenario(world: World) -> None:
        if row.committed:
            world.upstreams.hold()
        client = await world.client()
        extra = "Connection: close\r\n" if row.client == "1.1 close" else ""
        client.post(REQUEST, version=row.client[:3], extra=extra)
        if row.committed:
            await world.upstreams.next_waiter()
            world.pass_time(1.1)
            world.upstreams.grant()
        answer(row, await world.engine.next_request())
        status, headers, content, proper = await read(client)
        expected = fate(row)
        assert status == (502 if expected == "refused" else 200)
        framing = framing_for(row, status)
        assert ("content-length" in headers) == (framing == "length")
        assert ("transfer-encoding" in headers) == (framing == "chunked")
        assert headers.get("connection") == (None if row.client == "1.1" else "close")
        assert proper == (expected != "hard")
        if expected == "refused":
            assert json.loads(content)["error"]["code"] == "answer_cut"
        elif expected == "said":
            assert error_in(content) == "answer_cut"
        elif expected == "whole":
            wrapped = b"data: " + DOCUMENT + b"\n\n" + DONE
            whole = EVENT + DONE if row.kind == "events" else wrapped if row.committed else DOCUMENT
            assert content.endswith(whole)
            assert row.committed or content == whole
        outcome = (
            "served" if expected == "whole" else "refused" if expected == "refused" else "upstream_failed"
        )
        assert (await world.record()).outcome == outcome
        assert world.upstreams.leases[0].outcome == ("served" if expected == "whole" else "upstream_failed")

    run(scenario)
