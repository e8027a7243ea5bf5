"""What a client sees while its model loads, in each protocol, and what becomes of it afterwards."""

from __future__ import annotations

import json

import pytest

from router.ports import FrontLimits
from tests.support.wire import CHAT, STREAM, BusyError, Run, World

EVENT = b'data: {"choices":[]}\n\n'
DONE = b"data: [DONE]\n\n"
COMMENT = b": loading m 42% eta 12s\n\n"


def test_a_stream_gets_comments_while_its_model_loads_and_then_its_events(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(STREAM)
        await world.upstreams.next_waiter()
        world.pass_time(0.9)
        await world.turn()
        assert (await world.bytes_out()) == 0
        world.pass_time(0.2)
        status, headers = await client.head()
        assert status == 200
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["x-request-id"] == "req-0"
        assert await client.chunk() == COMMENT
        world.pass_time(1)
        assert await client.chunk() == COMMENT
        world.upstreams.grant()
        request = await world.engine.next_request()
        world.pass_time(1)
        assert b"waiting for its first token" in await client.chunk()
        request.begin_events()
        request.chunk(EVENT + DONE)
        request.send(b"0\r\n\r\n")
        assert await client.chunks() == EVENT + DONE
        record = await world.record()
        assert (record.status, record.outcome, record.streamed) == (200, "served", True)
        assert record.waited == pytest.approx(2.1)
        client.post(CHAT)
        await world.upstreams.next_waiter()
        world.upstreams.grant()
        (await world.engine.next_request()).answer(b"{}")
        assert (await client.answer())[0] == 200  # the connection is still good

    run(scenario)


def test_a_lease_within_the_first_second_commits_to_nothing(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(STREAM)
        await world.upstreams.next_waiter()
        world.pass_time(0.9)
        world.upstreams.grant()
        request = await world.engine.next_request()
        world.pass_time(5)  # a long prefill: the engine's status must still get through
        request.answer(b'{"detail":"too long"}', status="400 Bad Request")
        assert (await client.answer())[0] == 400

    run(scenario)


def test_an_http_1_0_client_gets_plain_comments(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(STREAM, version="1.0")
        await world.upstreams.next_waiter()
        world.pass_time(1.1)
        _, headers = await client.head()
        assert "transfer-encoding" not in headers
        world.upstreams.grant()
        request = await world.engine.next_request()
        request.begin_events()
        request.chunk(EVENT + DONE)
        request.send(b"0\r\n\r\n")
        assert await client.closed() == COMMENT + EVENT + DONE

    run(scenario)


def test_a_close_delimited_engine_after_a_commit_is_chunked(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(STREAM)
        await world.upstreams.next_waiter()
        world.pass_time(1.1)
        await client.head()
        world.upstreams.grant()
        request = await world.engine.next_request()
        request.begin_events(framing="close")
        request.send(EVENT)
        request.end()  # without its mark
        body = await client.chunks()
        assert body.startswith(COMMENT + EVENT)
        assert b'"answer_cut"' in body

    run(scenario)


PATHS = {
    "/v1/chat/completions": b"data: {",
    "/v1/responses": b"event: error\ndata: {",
    "/v1/messages": b"event: error\ndata: {",
}


@pytest.mark.parametrize("path", PATHS)
def test_a_failure_after_the_commit_is_an_error_event_of_the_protocol(run: Run, path: str) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(STREAM, path=path)
        await world.upstreams.next_waiter()
        world.pass_time(1.1)
        await client.head()
        beat = await client.chunk()
        if path == "/v1/messages":
            assert beat == b'event: ping\ndata: {"type": "ping"}\n\n'
        else:
            assert beat == COMMENT
        world.upstreams.refuse(BusyError("no room"))
        event = await client.chunks()
        assert event.startswith(PATHS[path])
        assert event.endswith(b"\n\n")
        payload = json.loads(event.partition(b"data: ")[2])
        if path == "/v1/chat/completions":
            assert payload["error"]["code"] == "queue_full"
        elif path == "/v1/messages":
            assert payload["type"] == "error"
            assert payload["error"]["type"] == "overloaded_error"
        else:
            assert (payload["type"], payload["code"]) == ("error", "queue_full")
        record = await world.record()
        assert (record.outcome, record.code, record.status) == ("refused", "queue_full", 200)

    run(scenario)


def test_an_engines_error_after_the_commit_is_an_error_event(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(STREAM)
        await world.upstreams.next_waiter()
        world.pass_time(1.1)
        await client.head()
        assert await client.chunk() == COMMENT
        world.upstreams.grant()
        request = await world.engine.next_request()
        request.answer(b'{"error":"context too long"}', status="400 Bad Request")
        event = json.loads((await client.chunk())[6:])
        assert event["error"]["message"] == "context too long"
        assert await client.chunk() == b""
        assert world.upstreams.leases[0].outcome == "served"  # the instance is well

    run(scenario)


def test_a_plain_answer_after_the_commit_becomes_one_event(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(STREAM)
        await world.upstreams.next_waiter()
        world.pass_time(1.1)
        await client.head()
        world.upstreams.grant()
        (await world.engine.next_request()).answer(b'{"choices":\n[]}')
        body = await client.chunks()
        assert body == COMMENT + b'data: {"choices":\ndata: []}\n\ndata: [DONE]\n\n'

    run(scenario)


def test_a_request_that_does_not_stream_waits_without_a_byte(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(CHAT)
        await world.upstreams.next_waiter()
        world.pass_time(60)
        await world.turn()
        assert (await world.bytes_out()) == 0
        world.upstreams.refuse(BusyError("no room"))
        status, headers, body = await client.answer()
        assert (status, json.loads(body)["error"]["code"]) == (503, "queue_full")
        assert headers["retry-after"] == "3"

    run(scenario)


def test_comments_can_be_switched_off(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(STREAM)
        await world.upstreams.next_waiter()
        world.pass_time(10)
        await world.turn()
        assert (await world.bytes_out()) == 0
        world.upstreams.refuse(BusyError("no room"))
        assert await client.error() == (503, "queue_full")

    run(scenario, limits=FrontLimits(loading_comments=False))


def test_a_crash_after_the_commit_is_retried_while_comments_go_on(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(STREAM)
        await world.upstreams.next_waiter()
        world.pass_time(1.1)
        await client.head()
        assert await client.chunk() == COMMENT
        world.upstreams.grant()
        (await world.engine.next_request()).abort()
        await world.upstreams.next_waiter()
        world.pass_time(1.1)
        assert await client.chunk() == COMMENT
        world.upstreams.grant()
        request = await world.engine.next_request()
        request.begin_events()
        request.chunk(DONE)
        request.send(b"0\r\n\r\n")
        assert await client.chunks() == DONE
        assert (await world.record()).retried

    run(scenario)
