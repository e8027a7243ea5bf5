"""One retry, and only while no byte of an answer has come."""

from __future__ import annotations

import asyncio
import socket

from router.ports import FrontLimits, Outcome
from tests.support.wire import CHAT, STREAM, Run, World

ANSWER = b'{"ok":1}'


def unused_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_stale_kept_connection_is_replaced_with_the_same_lease(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        first = await world.engine.next_request()
        first.answer(ANSWER)
        await client.answer()
        client.post(CHAT)
        second = await world.engine.next_request()
        assert second.connection is first.connection
        second.end()  # read, and closed without a word
        third = await world.engine.next_request()
        assert third.connection is not first.connection
        assert third.body == CHAT
        third.answer(ANSWER)
        assert (await client.answer())[2] == ANSWER
        assert (await world.record(1)).retried
        assert [lease.ended for lease in world.upstreams.leases] == [[Outcome.SERVED], [Outcome.SERVED]]

    run(scenario)


def test_after_one_stale_connection_no_other_kept_one_is_tried(run: Run) -> None:
    async def scenario(world: World) -> None:
        clients = [await world.client(), await world.client()]
        for client in clients:
            client.post(CHAT)
        kept = [await world.engine.next_request() for _ in clients]
        for request, client in zip(kept, clients, strict=True):
            request.answer(ANSWER)
            await client.answer()
        clients[0].post(CHAT)
        stale = await world.engine.next_request()
        stale.end()
        fresh = await world.engine.next_request()
        assert fresh.connection not in [request.connection for request in kept]
        fresh.answer(ANSWER)
        assert (await clients[0].answer())[0] == 200

    run(scenario)


def test_a_connection_is_too_old_before_the_wheel_has_looked(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        first = await world.engine.next_request()
        first.answer(ANSWER)
        await client.answer()
        world.time.value += 4.1
        client.post(CHAT)
        second = await world.engine.next_request()
        assert second.connection is not first.connection
        second.answer(ANSWER)
        await client.answer()

    run(scenario)


def test_a_connection_idle_for_too_long_is_not_used(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        first = await world.engine.next_request()
        first.answer(ANSWER)
        await client.answer()
        world.pass_time(4.1)
        await first.connection.gone
        client.post(CHAT)
        (await world.engine.next_request()).answer(ANSWER)
        assert (await client.answer())[0] == 200
        assert not (await world.record(1)).retried
        assert world.front.shared.pool.opened == 2

    run(scenario)


def test_a_new_incarnation_never_gets_an_old_connection(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        first = await world.engine.next_request()
        first.answer(ANSWER)
        await client.answer()
        world.upstreams.generation = 2
        client.post(CHAT)
        second = await world.engine.next_request()
        assert second.connection is not first.connection
        second.answer(ANSWER)
        await client.answer()

    run(scenario)


def test_a_refused_connection_costs_the_lease_and_is_tried_with_a_fresh_one(run: Run) -> None:
    async def scenario(world: World) -> None:
        good = world.engine.port
        world.engine.port = unused_port()
        world.upstreams.hold()
        client = await world.client()
        client.post(CHAT)
        await world.upstreams.arrived.wait()
        world.upstreams.grant()  # the closed port
        await world.upstreams.next_waiter()
        assert world.upstreams.leases[0].ended == [Outcome.UPSTREAM_FAILED]
        world.engine.port = good
        world.upstreams.grant()
        (await world.engine.next_request()).answer(ANSWER)
        assert (await client.answer())[0] == 200
        record = await world.record()
        assert record.retried
        assert record.outcome == "served"

    run(scenario)


def test_two_refused_connections_are_an_error(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.engine.port = unused_port()
        client = await world.client()
        client.post(CHAT)
        assert await client.error() == (502, "engine_unreachable")
        assert [lease.ended for lease in world.upstreams.leases] == [[Outcome.UPSTREAM_FAILED]] * 2

    run(scenario)


def test_an_engine_that_dies_with_the_request_is_tried_once_more(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        (await world.engine.next_request()).abort()
        second = await world.engine.next_request()
        assert second.body == CHAT
        second.answer(ANSWER)
        assert (await client.answer())[0] == 200
        assert world.upstreams.leases[0].ended == [Outcome.UPSTREAM_FAILED]
        assert world.upstreams.leases[1].ended == [Outcome.SERVED]

    run(scenario)


def test_a_request_in_flight_at_two_crashes_is_refused(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM)
        (await world.engine.next_request()).abort()
        (await world.engine.next_request()).abort()
        assert await client.error() == (502, "engine_crashed")
        assert [lease.ended for lease in world.upstreams.leases] == [[Outcome.UPSTREAM_FAILED]] * 2
        assert world.engine.requests.empty()

    run(scenario)


def test_a_kept_connection_lost_to_a_dead_engine_counts_as_a_crash(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        (await world.engine.next_request()).answer(ANSWER)
        await client.answer()
        client.post(CHAT)
        second = await world.engine.next_request()
        world.upstreams.hold()
        world.engine.stop_listening()
        second.abort()
        await world.upstreams.next_waiter()  # the reconnection was refused: a fresh lease is asked for
        await world.engine.start()
        world.upstreams.grant()
        (await world.engine.next_request()).abort()
        assert await client.error() == (502, "engine_crashed")

    run(scenario)


def test_nothing_is_retried_once_a_byte_has_come(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        request = await world.engine.next_request()
        request.send(b"HTTP/1.1 200")
        request.end()
        assert await client.error() == (502, "bad_answer")
        assert world.engine.requests.empty()
        assert len(world.upstreams.leases) == 1

    run(scenario)


def test_an_engine_that_never_begins_its_answer_is_given_up(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        request = await world.engine.next_request()
        world.pass_time(9)
        assert not request.connection.gone.done()
        world.pass_time(2)
        assert await client.error() == (504, "first_byte_timeout")
        await request.connection.gone
        assert world.upstreams.leases[0].ended == [Outcome.ABANDONED]

    run(scenario, limits=FrontLimits(first_byte_timeout=10))


def test_a_large_body_is_sent_again_whole(run: Run) -> None:
    body = b'{"model":"m","image":"' + b"A" * 300_000 + b'"}'

    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(body)
        (await world.engine.next_request()).abort()
        second = await world.engine.next_request()
        assert second.body == body
        second.answer(ANSWER)
        assert (await client.answer())[0] == 200
        assert world.front.shared.buffers.kept_bytes >= 300_000  # the buffer came back

    run(scenario)


def test_many_requests_at_once_open_as_many_connections_and_keep_them(run: Run) -> None:
    async def scenario(world: World) -> None:
        clients = [await world.client() for _ in range(20)]
        for client in clients:
            client.post(CHAT)
        requests = [await world.engine.next_request() for _ in clients]
        for request in requests:
            request.answer(ANSWER)
        await asyncio.gather(*(client.answer() for client in clients))
        assert world.front.shared.pool.idle == 20
        for client in clients:
            client.post(CHAT)
        for _ in clients:
            (await world.engine.next_request()).answer(ANSWER)
        await asyncio.gather(*(client.answer() for client in clients))
        assert world.front.shared.pool.opened == 20

    run(scenario)
