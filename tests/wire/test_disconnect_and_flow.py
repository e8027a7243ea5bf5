"""Clients that leave, clients that read slowly, clients that pipeline; and what a warm request spares."""

from __future__ import annotations

import asyncio

from router.ports import FrontLimits, Outcome
from tests.support.wire import CHAT, STREAM, RawClient, Run, World

EVENT = b'data: {"choices":[]}\n\n'
DONE = b"data: [DONE]\n\n"
ANSWER = b'{"ok":1}'


def test_a_client_that_leaves_a_stream_stops_the_engine(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events()
        request.chunk(EVENT)
        await client.head()
        client.close()
        await request.connection.gone
        record = await world.record()
        assert (record.outcome, record.status) == ("client_gone", 200)
        assert world.upstreams.leases[0].ended == [Outcome.CLIENT_GONE]

    run(scenario)


def test_a_client_that_leaves_before_the_first_byte_stops_the_engine(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        request = await world.engine.next_request()
        client.abort()
        await request.connection.gone
        assert (await world.record()).status == 499

    run(scenario)


def test_a_client_that_leaves_while_it_waits_gives_its_place_back(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(CHAT)
        await world.upstreams.arrived.wait()
        assert world.front.counters.waiting == 1
        assert world.front.shared.budget.held_by("m") == len(CHAT)
        client.close()
        assert (await world.record()).outcome == "client_gone"
        await world.turn()
        assert world.upstreams.cancelled == 1
        assert world.upstreams.leases == []
        assert world.front.shared.budget.held_by("m") == 0

    run(scenario)


def test_an_engine_that_cannot_be_stopped_is_read_to_its_end(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", abort_on_disconnect=False)
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events()
        await client.head()
        client.close()
        assert (await world.record()).outcome == "client_gone"
        assert world.upstreams.leases[0].ended == []  # the engine still works: its slot is taken
        request.chunk(EVENT)
        request.chunk(DONE)
        request.send(b"0\r\n\r\n")
        while world.front.shared.drains:
            await world.turn()
        assert world.upstreams.leases[0].ended == [Outcome.CLIENT_GONE]
        assert world.front.shared.pool.idle == 1

    run(scenario)


def test_a_drain_reads_on_where_a_slow_client_had_stopped_us(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", abort_on_disconnect=False)
        client = await world.client(limit=1024)
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events()
        transport = request.connection.transport
        while transport.get_write_buffer_size() < 2**20:
            request.chunk(b"data: " + b"x" * 65000 + b"\n\n")
            await world.turn()
        client.abort()
        await world.record()
        while transport.get_write_buffer_size():
            await world.turn()
        request.chunk(DONE)
        request.send(b"0\r\n\r\n")
        while world.front.shared.drains:
            await world.turn()

    run(scenario)


def test_a_drain_ends_when_it_has_read_enough(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", abort_on_disconnect=False)
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events()
        await client.head()
        client.close()
        await world.record()
        sent = 0
        while not request.connection.gone.done():
            request.chunk(b"data: " + b"x" * 65000 + b"\n\n")
            sent += 65000
            assert sent < 2**26
            await world.turn()
        assert sent >= 2**24

    run(scenario)


def test_a_drain_has_a_limit(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", abort_on_disconnect=False)
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events()
        await client.head()
        client.close()
        await world.record()
        world.pass_time(121)
        await request.connection.gone
        assert world.upstreams.leases[0].ended == [Outcome.CLIENT_GONE]

    run(scenario)


def test_a_client_that_does_not_read_stops_our_reading(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client(limit=1024)
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events()
        block = b"data: " + b"x" * 65000 + b"\n\n"
        transport = request.connection.transport
        sent = 0
        # Kernel buffers take some megabytes; then the engine's own writes must begin to queue.
        while transport.get_write_buffer_size() < 2**20:
            request.chunk(block)
            sent += 1
            assert sent < 2000
            await world.turn()
        front_buffer = max(c.transport.get_write_buffer_size() for c in world.front.clients())
        assert front_buffer < 2**20
        request.chunk(DONE)
        request.send(b"0\r\n\r\n")
        await client.head()
        total = len(await client.chunks())
        assert total == sent * len(block) + len(DONE)
        assert (await world.record()).outcome == "served"

    run(scenario)


def test_a_client_that_stops_reading_for_good_is_cut(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client(limit=1024)
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events()
        while request.connection.transport.get_write_buffer_size() < 2**20:
            request.chunk(b"data: " + b"x" * 65000 + b"\n\n")
            await world.turn()
        world.pass_time(301)
        await request.connection.gone
        assert (await world.record()).outcome == "client_gone"

    run(scenario)


def test_pipelined_requests_are_answered_in_order(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        bodies = [b'{"model":"m","n":%d}' % i for i in range(5)]
        for body in bodies:
            client.post(body)
        for i, body in enumerate(bodies):
            request = await world.engine.next_request()
            assert request.body == body
            assert world.engine.requests.empty()  # one at a time
            request.answer(b'{"n":%d}' % i)
            assert (await client.answer())[2] == b'{"n":%d}' % i

    run(scenario)


def test_pipelined_refusals_and_answers_keep_their_order(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        for body in (b"[]", CHAT, b"no", b'{"model":"x"}'):
            client.post(body)
        assert await client.error() == (400, "invalid_json")
        (await world.engine.next_request()).answer(ANSWER)
        assert (await client.answer())[2] == ANSWER
        assert await client.error() == (400, "invalid_json")
        assert await client.error() == (404, "model_not_found")
        assert [record.status for record in world.records] == [400, 200, 400, 404]

    run(scenario)


def test_what_a_pipelining_client_sends_ahead_is_bounded(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        request = await world.engine.next_request()
        body = b'{"model":"m","x":"' + b"y" * 60_000 + b'"}'
        for _ in range(200):  # 12 MB: more than the kernel's buffers take
            client.post(body)
        for _ in range(50):
            await world.turn()
        (connection,) = world.front.clients()
        assert connection.ahead < 2**19
        assert client.writer.transport.get_write_buffer_size() > 0
        request.answer(ANSWER)
        assert (await client.answer())[0] == 200
        for _ in range(200):
            (await world.engine.next_request()).answer(ANSWER)
            assert (await client.answer())[0] == 200

    run(scenario)


def test_a_warm_request_makes_no_task(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        (await world.engine.next_request()).answer(ANSWER)
        await client.answer()
        assert world.tasks == ["front-reach"]  # the first one had to connect
        before = asyncio.all_tasks()
        for _ in range(10):
            client.post(CHAT)
            (await world.engine.next_request()).answer(ANSWER)
            await client.answer()
        assert world.tasks == ["front-reach"]
        assert asyncio.all_tasks() == before

    run(scenario)


async def in_flight(world: World) -> tuple[RawClient, RawClient]:
    """A stream under way and an idle client."""
    busy, idle = await world.client(), await world.client()
    idle.post(b"[]")
    await idle.error()
    busy.post(STREAM)
    return busy, idle


def test_closing_lets_a_stream_end_and_takes_nothing_new(run: Run) -> None:
    async def scenario(world: World) -> None:
        busy, idle = await in_flight(world)
        request = await world.engine.next_request()
        request.begin_events()
        request.chunk(EVENT)
        await busy.head()
        closing = asyncio.get_running_loop().create_task(world.front.close(30))
        assert await idle.closed() == b""
        request.chunk(DONE)
        request.send(b"0\r\n\r\n")
        assert await busy.chunks() == EVENT + DONE
        assert await busy.closed() == b""
        await closing
        assert world.records[-1].outcome == "served"

    run(scenario)


def test_closing_without_grace_says_so_inside_the_stream(run: Run) -> None:
    async def scenario(world: World) -> None:
        busy, _ = await in_flight(world)
        request = await world.engine.next_request()
        request.begin_events()
        request.chunk(EVENT)
        await busy.head()
        assert await busy.chunk() == EVENT
        await world.front.close(0)
        assert b'"shutting_down"' in await busy.chunks()
        assert world.upstreams.leases[0].ended == [Outcome.ABANDONED]

    run(scenario)


def test_closing_refuses_what_has_no_answer_yet(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(CHAT)
        await world.upstreams.arrived.wait()
        await world.front.close(0)
        assert await client.error() == (503, "shutting_down")

    run(scenario)


def test_an_idle_client_is_closed_after_its_keep_alive(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        (await world.engine.next_request()).answer(ANSWER)
        await client.answer()
        world.pass_time(74)
        client.post(CHAT)
        (await world.engine.next_request()).answer(ANSWER)
        await client.answer()
        world.pass_time(76)
        assert await client.closed() == b""

    run(scenario, limits=FrontLimits(keep_alive=75))
