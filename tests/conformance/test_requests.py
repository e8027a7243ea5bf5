"""Requests, one by one and split anywhere: refused with the right status, or at the engine as they are."""

from __future__ import annotations

import json

import pytest

from tests.conformance.requests import REFUSED, TAKEN
from tests.support.wire import CHAT, RawClient, Run, World

_HOP_BY_HOP = {
    b"transfer-encoding",
    b"upgrade",
    b"expect",
    b"http2-settings",
    b"x-secret",
    b"x-t",
    b"trailer",
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_and_nothing_reaches_an_engine(run: Run, what: str) -> None:
    case = REFUSED[what]

    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(case.raw)
        status, headers, body = await client.answer()
        error = json.loads(body)["error"]
        assert (status, error["code"]) == (case.status, case.code or error["code"])
        assert error["message"]
        assert world.engine.requests.empty()
        assert (await world.record()).outcome == "refused"
        if headers.get("connection") == "close":
            assert await client.closed() == b""
        else:
            await _still_in_step(world, client)

    run(scenario)


async def _still_in_step(world: World, client: RawClient) -> None:
    """The next request on *client* is read as one."""
    client.post(CHAT)
    (await world.engine.next_request()).answer(b"{}")
    assert (await client.answer())[0] == 200


@pytest.mark.parametrize("split", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("what", TAKEN)
def test_it_is_taken_and_reaches_the_engine_whole(run: Run, what: str, *, split: bool) -> None:
    case = TAKEN[what]

    async def scenario(world: World) -> None:
        client = await world.client()
        if split:
            for i in range(len(case.raw)):
                client.send(case.raw[i : i + 1])
                await world.turn()
        else:
            client.send(case.raw)
        received = await world.engine.next_request()
        assert received.line.startswith(b"POST /v1/chat/completions")
        assert received.body == CHAT
        assert received.header("content-length") == str(len(CHAT))
        assert not _HOP_BY_HOP & received.headers.keys()
        received.answer(b"{}")
        status, headers = await client.head()
        if status == 100:
            assert split  # only a client that waits is told to go on
            status, headers = await client.head()
        assert status == case.status
        assert await client.reader.readexactly(2) == b"{}"
        if b"HTTP/1.0" in case.raw:
            assert headers["connection"] == "close"
            assert await client.closed() == b""
        else:
            await _still_in_step(world, client)

    run(scenario)
