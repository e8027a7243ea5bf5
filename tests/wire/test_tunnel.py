"""`/v1/realtime`: a WebSocket goes through to the engine, and nothing else is upgraded."""

from __future__ import annotations

import asyncio

import pytest

from router.ports import FrontLimits, Outcome
from tests.support.scripted_upstream import Received
from tests.support.wire import CHAT, RawClient, Run, World

ASK = (
    b"GET /v1/realtime?model=m&intent=a%20b HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Authorization: Bearer mine\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def opened(world: World, *, ask: bytes = ASK, switch: bytes = SWITCH) -> tuple[RawClient, Received]:
    """Both ends of a tunnel."""
    client = await world.client()
    client.send(ask)
    request = await world.engine.next_request()
    request.send(switch)
    status, headers = await client.head()
    assert status == 101
    assert (headers["upgrade"], headers["connection"]) == ("websocket", "Upgrade")
    assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    return client, request


def test_bytes_pass_both_ways_until_the_engine_ends(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.key = "engine-key"
        client, request = await opened(world)
        assert request.line == b"GET /v1/realtime?model=m&intent=a+b HTTP/1.1"
        assert request.header("authorization") == "Bearer engine-key"
        assert request.header("connection") == "Upgrade"
        assert request.header("upgrade") == "websocket"
        assert request.header("sec-websocket-key") == "dGhlIHNhbXBsZSBub25jZQ=="
        client.send(b"\x81\x02hi" * 3)
        assert await request.connection.raw(12) == b"\x81\x02hi" * 3
        request.send(b"\x81\x03yes")
        assert await client.reader.readexactly(5) == b"\x81\x03yes"
        request.end()
        assert await client.closed() == b""
        record = await world.record()
        assert (record.status, record.outcome, record.model) == (101, "served", "m")
        assert (record.bytes_in, world.upstreams.leases[0].outcome) == (12, Outcome.SERVED)

    run(scenario)


def test_what_is_sent_ahead_waits_for_the_switch(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(ASK + b"early")
        request = await world.engine.next_request()
        await world.turn()
        request.send(SWITCH + b"late")
        assert (await client.head())[0] == 101
        assert await client.reader.readexactly(4) == b"late"
        assert await request.connection.raw(5) == b"early"

    run(scenario)


def test_a_client_that_leaves_ends_the_engines_side(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", abort_on_disconnect=False)  # a tunnel is never drained
        client, request = await opened(world)
        client.close()
        await request.connection.gone
        assert (await world.record()).outcome == "client_gone"

    run(scenario)


def test_an_engine_that_does_not_switch_is_heard(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(ASK)
        (await world.engine.next_request()).answer(b'{"detail":"no"}', status="404 Not Found")
        assert (await client.answer())[0] == 404
        client.post(CHAT)
        (await world.engine.next_request()).answer(b"{}")
        assert (await client.answer())[0] == 200

    run(scenario)


def test_a_tunnel_waits_for_its_model(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.send(ASK)
        await world.upstreams.next_waiter()
        world.pass_time(5)
        world.upstreams.grant()
        (await world.engine.next_request()).send(SWITCH)
        assert (await client.head())[0] == 101

    run(scenario)


def test_an_engine_that_reads_slowly_slows_the_client(run: Run) -> None:
    async def scenario(world: World) -> None:
        client, request = await opened(world)
        request.connection.transport.pause_reading()
        block = b"x" * 65536
        async with asyncio.timeout(8):
            while client.writer.transport.get_write_buffer_size() < 2**20:
                client.send(block)
                await world.turn()
        (connection,) = world.front.clients()
        assert connection.exchange is not None
        assert connection.exchange.bytes_in < 64 * 2**20
        request.connection.transport.resume_reading()
        await client.writer.drain()

    run(scenario)


def test_an_idle_tunnel_is_closed(run: Run) -> None:
    async def scenario(world: World) -> None:
        client, request = await opened(world)
        world.pass_time(50)
        client.send(b"x")
        await request.connection.raw(1)
        world.pass_time(50)
        assert world.front.counters.in_flight == 1
        world.pass_time(11)
        assert await client.closed() == b""
        assert (await world.record()).code == "tunnel_idle"

    run(scenario, limits=FrontLimits(tunnel_idle=60))


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Connection: keep-alive, Upgrade\r\n", b"", 400),
        (b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx", 400),
        (b"HTTP/1.1", b"HTTP/1.0", 501),
        (b"GET", b"POST", 501),
        (b"model=m&", b"model=m&model=m&", 400),
        (b"model=m", b"model=who", 404),
        (b"model=m", b"&".join(b"a=%d" % n for n in range(40)), 400),
        (b"/v1/realtime", b"/v1/other", 501),
    ],
)
def test_an_upgrade_that_is_not_right_is_refused(run: Run, old: bytes, new: bytes, status: int) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(ASK.replace(old, new, 1))
        assert (await client.error())[0] == status

    run(scenario)
