"""Clients that begin TLS and do not get through: counted, bounded, and gone without a trace."""

from __future__ import annotations

import socket
import ssl

import pytest
import trustme

from router.handshake import HANDSHAKE_SECONDS
from router.ports import FrontLimits
from router.sockets import listening_socket
from tests.support.wire import CHAT, RawClient, Run, World

AUTHORITY = trustme.CA()
SHOWN = AUTHORITY.issue_cert("localhost", "127.0.0.1")
HELLO = bytes.fromhex("16030100c4010000c00303")
"""The beginning of a ClientHello of 196 bytes."""


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


async def listen(world: World) -> int:
    """A port of *world*'s front that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    SHOWN.configure_cert(context)
    sock = listening_socket("127.0.0.1", 0)
    await world.front.start(sockets=[sock], secure=[sock], tls=context)
    port: int = sock.getsockname()[1]
    return port


async def begin(world: World, port: int, said: bytes = HELLO) -> RawClient:
    """A client that says *said* and no more, once it is counted."""
    before = world.front.counters.connections
    client = await world.client(port=port)
    client.send(said)
    while world.front.counters.connections == before:
        await world.turn()
    return client


async def none_left(world: World, count: int = 0) -> None:
    while world.front.counters.connections != count:
        await world.turn()
    assert sum(world.front.shared.connections_of.values()) == count


@pytest.mark.parametrize("said", [b"", HELLO], ids=["silent", "half a hello"])
def test_who_never_finishes_is_counted_and_cut_in_time(run: Run, said: bytes) -> None:
    async def scenario(world: World) -> None:
        port = await listen(world)
        client = await begin(world, port, said)
        assert world.front.counters.connections_total == 0, "it is none yet"
        world.pass_time(HANDSHAKE_SECONDS - 1)
        await world.turn()
        assert world.front.counters.connections == 1
        world.pass_time(2)
        assert await client.closed() == b""
        await none_left(world)

    run(scenario)


def test_handshakes_take_the_places_of_connections(run: Run) -> None:
    async def scenario(world: World) -> None:
        port = await listen(world)
        shaking = [await begin(world, port) for _ in range(3)]
        beyond = await world.client(port=port)
        assert await beyond.closed() == b""
        plain = await world.client()
        plain.post(CHAT)
        assert await plain.error() == (503, "too_many_connections")
        plain.abort()
        shaking[0].abort()
        await none_left(world, 2)
        client = await world.client(port=port, tls=trusting())
        client.post(CHAT)
        (await world.engine.next_request()).answer(b"{}")
        assert (await client.answer())[0] == 200
        for one in (*shaking, client):
            one.abort()
        await none_left(world)

    run(scenario, limits=FrontLimits(connections=3))


def test_one_client_has_its_share_of_them(run: Run) -> None:
    async def scenario(world: World) -> None:
        port = await listen(world)
        kept = await begin(world, port)
        beyond = await world.client(port=port)
        assert await beyond.closed() == b""
        kept.abort()
        await none_left(world)

    run(scenario, limits=FrontLimits(connections_per_client=1))


def test_who_gets_through_counts_once_and_may_send_at_once(run: Run) -> None:
    async def scenario(world: World) -> None:
        port = await listen(world)
        client = await world.client(port=port, tls=trusting())
        for _ in range(2):
            client.post(CHAT, extra="X-Long: " + "x" * 20000 + "\r\n")
            (await world.engine.next_request()).answer(b"{}")
            assert (await client.answer())[0] == 200
        assert world.front.counters.connections == world.front.counters.connections_total == 1
        client.close()
        await none_left(world)

    run(scenario)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x28"])
def test_who_does_not_speak_it_is_closed(run: Run, said: bytes) -> None:
    async def scenario(world: World) -> None:
        port = await listen(world)
        client = await begin(world, port, said)
        await client.closed()
        await none_left(world)

    run(scenario)


def test_a_request_in_the_packet_of_the_last_flight_is_answered(run: Run) -> None:
    async def scenario(world: World) -> None:
        port = await listen(world)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")
        client = await begin(world, port, b"")
        done = False
        while not done:
            try:
                tls.do_handshake()
                done = True
                tls.write(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n")
            except ssl.SSLWantReadError:
                pass
            client.send(outgoing.read())
            if not done:
                incoming.write(await client.reader.read(65536))
        _, writer, _ = await world.control.next_request()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        answer = b""
        while b"204" not in answer:
            try:
                answer += tls.read()
            except ssl.SSLWantReadError:
                incoming.write(await client.reader.read(65536))
        writer.close()
        client.abort()
        await none_left(world)

    run(scenario)


def test_a_front_that_closes_waits_for_none_of_them(run: Run) -> None:
    async def scenario(world: World) -> None:
        port = await listen(world)
        client = await begin(world, port)
        await world.front.close(0)
        assert await client.closed() == b""
        await none_left(world)

    run(scenario)


def test_who_gets_through_to_one_that_leaves_asks_once(run: Run) -> None:
    async def scenario(world: World) -> None:
        port = await listen(world)
        client = await begin(world, port, b"")
        world.front.retire()
        await client.writer.start_tls(trusting(), server_hostname="localhost")
        client.post(CHAT)
        (await world.engine.next_request()).answer(b"{}")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")

    run(scenario)


def test_a_port_scan_of_many(run: Run) -> None:
    async def scenario(world: World) -> None:
        port = await listen(world)
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", port)):
                pass
        client = await world.client(port=port, tls=trusting())
        client.post(CHAT)
        (await world.engine.next_request()).answer(b"{}")
        assert (await client.answer())[0] == 200
        client.abort()
        await none_left(world)

    run(scenario)
