"""Bounds, and what is said at each."""

from __future__ import annotations

import json

import pytest

from router.ports import FrontLimits
from tests.support.wire import CHAT, STREAM, Run, World

ANSWER = b'{"ok":1}'


def test_too_many_header_bytes_are_refused_before_llhttp_sees_them(run: Run) -> None:
    async def scenario(world: World) -> None:
        for raw in (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 3000, b"GET /" + b"a" * 3000):
            client = await world.client()
            client.send(raw)
            assert await client.error() == (431, "header_too_large")
        client = await world.client()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 3000 + b"\r\n\r\n")
        assert await client.error() == (431, "header_too_large")

    run(scenario, limits=FrontLimits(header_bytes=2000))


def test_too_many_fields_are_refused(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n")
        assert await client.error() == (431, "too_many_headers")

    run(scenario)


def test_a_body_above_the_limit_is_refused_by_its_length(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
            b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n"
        )
        assert await client.error() == (413, "body_too_large")

    run(scenario, limits=FrontLimits(body_bytes=1000))


def test_a_chunked_body_above_the_limit_is_refused_on_the_way(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert await client.error() == (413, "body_too_large")
        assert world.front.shared.budget.held == 0

    run(scenario, limits=FrontLimits(body_bytes=1000))


def test_bodies_of_all_clients_together_are_bounded(run: Run) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.client(), await world.client()
        first.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\nx")
        await world.turn()
        assert world.front.shared.budget.held == 900
        second.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\n\r\nx")
        status, headers, body = await second.answer()
        assert (status, json.loads(body)["error"]["code"]) == (503, "buffer_full")
        assert int(headers["retry-after"]) >= 1
        first.abort()
        await world.record(1)
        assert world.front.shared.budget.held == 0

    run(scenario, limits=FrontLimits(buffered_bytes_total=1000))


def test_one_cold_model_does_not_refuse_another(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("n")
        world.upstreams.hold()
        big = b'{"model":"m","x":"' + b"y" * 600 + b'"}'
        first = await world.client()
        first.post(big)
        await world.upstreams.arrived.wait()
        second = await world.client()
        second.post(big)
        assert await second.error() == (429, "buffer_full")
        third = await world.client()
        third.post(big.replace(b'"m"', b'"n"'))
        await world.upstreams.next_waiter(2)
        assert world.front.shared.budget.held_by("n") == len(big)
        world.upstreams.grant()
        (await world.engine.next_request()).answer(ANSWER)
        assert (await first.answer())[0] == 200
        world.upstreams.grant()
        (await world.engine.next_request()).answer(ANSWER)
        assert (await third.answer())[0] == 200
        assert world.front.shared.budget.held == 0

    run(scenario, limits=FrontLimits(buffered_bytes_per_model=1000, buffered_bytes_total=10_000))


def test_too_many_clients_are_refused_with_a_word(run: Run) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.client(), await world.client()
        for client in (first, second):
            client.post(CHAT)
            (await world.engine.next_request()).answer(ANSWER)
            await client.answer()
        third = await world.client()
        assert await third.error() == (503, "too_many_connections")
        first.close()
        while world.front.counters.connections > 1:
            third.close()
            await world.turn()
        fourth = await world.client()
        fourth.post(CHAT)
        (await world.engine.next_request()).answer(ANSWER)
        assert (await fourth.answer())[0] == 200

    run(scenario, limits=FrontLimits(connections=2))


def test_a_slow_head_is_refused_however_steadily_it_drips(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        for i in range(31):
            client.send(b"P" if i == 0 else b"O")
            await world.turn()
            world.pass_time(1)
        assert await client.error() == (408, "request_timeout")

    run(scenario, limits=FrontLimits(head_timeout=30))


def test_a_client_that_says_nothing_at_all_is_closed(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        await world.turn()
        world.pass_time(31)
        assert await client.closed() == b""

    run(scenario, limits=FrontLimits(head_timeout=30))


def test_a_body_that_stops_coming_is_refused(run: Run) -> None:
    async def scenario(world: World) -> None:
        for head in (b"Content-Length: 100\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n64\r\nab"):
            client = await world.client()
            client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n" + head)
            for _ in range(3):
                await world.turn()
                world.pass_time(50)
                client.send(b"x")  # slow, but it moves
            await world.turn()
            world.pass_time(61)
            assert await client.error() == (408, "request_timeout")

    run(scenario, limits=FrontLimits(body_timeout=60))


def test_one_client_cannot_take_all_connections(run: Run) -> None:
    async def scenario(world: World) -> None:
        first = await world.client()
        first.post(CHAT)
        (await world.engine.next_request()).answer(ANSWER)
        await first.answer()
        second = await world.client()
        status, headers, body = await second.answer()
        assert (status, json.loads(body)["error"]["code"]) == (503, "too_many_connections")
        assert "127.0.0.1" in json.loads(body)["error"]["message"]
        assert headers["retry-after"] == "1"
        first.close()
        second.close()
        while world.front.shared.connections_of:
            await world.turn()

    run(scenario, limits=FrontLimits(connections_per_client=1))


@pytest.mark.parametrize("streams", [False, True])
def test_an_answer_that_takes_too_long_is_ended(run: Run, *, streams: bool) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM if streams else CHAT)
        request = await world.engine.next_request()
        if streams:
            request.begin_events()
            request.chunk(b"data: {}\n\n")
            await client.head()
            assert await client.chunk() == b"data: {}\n\n"
        world.pass_time(59)
        assert world.front.counters.in_flight == 1
        world.pass_time(2)
        if streams:
            assert json.loads((await client.chunk())[6:])["error"]["code"] == "answer_timeout"
            assert await client.chunk() == b""
        else:
            assert await client.error() == (504, "answer_timeout")
        await request.connection.gone
        assert world.upstreams.leases[0].outcome == "abandoned"

    run(scenario, limits=FrontLimits(answer_timeout=60))


def test_a_model_may_have_a_time_of_its_own_for_the_first_byte(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("slow", first_byte_timeout=1200.0)
        world.serve("fast", first_byte_timeout=5.0)
        for model, seconds in (("fast", 5), ("slow", 1200)):
            client = await world.client()
            client.post(CHAT.replace(b'"m"', b'"%b"' % model.encode()))
            await world.engine.next_request()
            world.pass_time(seconds - 1)
            assert world.front.counters.in_flight == 1
            world.pass_time(2)
            status, _, body = await client.answer()
            assert (status, json.loads(body)["error"]["code"]) == (504, "first_byte_timeout")
            assert f"within {seconds} s" in json.loads(body)["error"]["message"]

    run(scenario)
