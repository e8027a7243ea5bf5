"""Upstream framing x client version: what comes out, byte for byte where it matters."""

from __future__ import annotations

import json

from tests.support.wire import CHAT, STREAM, Run, World

EVENT = b'data: {"id":"c","model":"m","choices":[{"delta":{"content":"hi"}}]}\n\n'
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"
ANSWER = (
    b'{"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":7,"total_tokens":9,"completion_tokens":2}}'
)


def test_a_counted_answer_passes_as_it_is(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        request = await world.engine.next_request()
        assert request.line == b"POST /v1/chat/completions HTTP/1.1"
        assert request.body == CHAT
        request.answer(ANSWER)
        status, headers, body = await client.answer()
        assert (status, body) == (200, ANSWER)
        assert headers["x-request-id"] == "req-0"
        record = await world.record()
        assert (record.outcome, record.status, record.model) == ("served", 200, "m")
        assert (record.prompt_tokens, record.completion_tokens) == (7, 2)

    run(scenario)


def test_a_chunked_stream_passes_as_it_is(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events()
        status, headers = await client.head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        for event in (EVENT, EVENT, USAGE, DONE):
            request.chunk(event)
            assert await client.chunk() == event
        request.send(b"0\r\n\r\n")
        assert await client.chunk() == b""
        record = await world.record()
        assert record.streamed
        assert (record.prompt_tokens, record.completion_tokens) == (7, 3)

    run(scenario)


def test_an_http_1_0_engine_is_chunked_for_an_http_1_1_client(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events(framing="close")
        status, headers = await client.head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        assert "connection" not in headers
        request.send(EVENT)
        assert await client.chunk() == EVENT
        request.send(DONE)
        request.end()
        assert await client.chunks() == DONE
        client.post(CHAT)  # the client's own connection lives on
        (await world.engine.next_request()).answer(ANSWER)
        assert (await client.answer())[2] == ANSWER

    run(scenario)


def test_a_chunked_stream_is_decoded_for_an_http_1_0_client(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM, version="1.0")
        request = await world.engine.next_request()
        request.begin_events()
        request.chunk(EVENT)
        request.chunk(DONE)
        request.send(b"0\r\n\r\n")
        status, headers = await client.head()
        assert status == 200
        assert "transfer-encoding" not in headers
        assert headers["connection"] == "close"
        assert await client.closed() == EVENT + DONE

    run(scenario)


def test_a_close_delimited_stream_stays_so_for_an_http_1_0_client(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM, version="1.0")
        request = await world.engine.next_request()
        request.begin_events(framing="close")
        request.send(EVENT + DONE)
        request.end()
        await client.head()
        assert await client.closed() == EVENT + DONE
        assert (await world.record()).outcome == "served"

    run(scenario)


def test_a_counted_answer_for_an_http_1_0_client_closes_after_it(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT, version="1.0")
        (await world.engine.next_request()).answer(ANSWER)
        status, headers = await client.head()
        assert (status, headers["content-length"], headers["connection"]) == (200, str(len(ANSWER)), "close")
        assert await client.closed() == ANSWER

    run(scenario)


def test_a_chunk_split_anywhere_reaches_the_client_whole(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events()
        await client.head()
        framed = b"%x\r\n%b\r\n" % (len(EVENT), EVENT) + b"%x\r\n%b\r\n" % (len(DONE), DONE) + b"0\r\n\r\n"
        for i in range(len(framed)):
            request.send(framed[i : i + 1])
            await world.turn()
        assert await client.chunks() == EVENT + DONE

    run(scenario)


def test_trailers_of_the_engine_are_dropped(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events()
        request.chunk(DONE)
        request.send(b"0\r\nset-cookie: a=b\r\n\r\n")
        await client.head()
        assert await client.chunks() == DONE
        client.post(CHAT)
        (await world.engine.next_request()).answer(ANSWER)
        assert (await client.answer())[0] == 200

    run(scenario)


def test_a_stream_without_its_end_mark_ends_with_a_typed_error_event(run: Run) -> None:
    """mlx_lm.server killed mid-stream: the socket closes as if all were well."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events(framing="close")
        request.send(EVENT)
        await client.head()
        assert await client.chunk() == EVENT
        request.end()
        event = await client.chunk()
        assert event.startswith(b"data: {")
        assert json.loads(event[6:])["error"]["code"] == "answer_cut"
        assert await client.chunk() == b""  # and a proper end
        client.post(CHAT)
        (await world.engine.next_request()).answer(ANSWER)
        assert (await client.answer())[0] == 200  # on the same connection
        record = await world.record()
        assert (record.outcome, record.code) == ("upstream_failed", "answer_cut")
        assert world.upstreams.leases[0].outcome == "upstream_failed"

    run(scenario)


def test_a_chunked_stream_that_ends_properly_without_its_mark_is_a_failure_too(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events()
        request.chunk(EVENT)
        request.send(b"0\r\n\r\n")
        await client.head()
        body = await client.chunks()
        assert body.startswith(EVENT)
        assert b'"answer_cut"' in body

    run(scenario)


def test_an_engine_without_end_marks_may_simply_end(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", sends_done=False)
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events(framing="close")
        request.send(EVENT)
        request.end()
        await client.head()
        assert await client.chunks() == EVENT
        assert (await world.record()).outcome == "served"

    run(scenario)


def test_death_between_two_chunks_is_said(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events()
        request.chunk(EVENT)
        await client.head()
        assert await client.chunk() == EVENT
        request.abort()
        assert b'"answer_cut"' in await client.chunks()

    run(scenario)


def test_death_inside_a_chunk_closes_hard(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events()
        await client.head()
        request.send(b"40\r\ndata: {")
        assert await client.reader.readexactly(11) == b"40\r\ndata: {"
        request.abort()
        assert b"0\r\n\r\n" not in await client.closed()

    run(scenario)


def test_death_inside_a_chunk_closes_hard_even_after_a_whole_event(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events()
        await client.head()
        request.send(b"%x\r\n" % (2 * len(EVENT)) + EVENT)
        await client.reader.readuntil(b"\n\n")
        request.abort()
        assert await client.closed() == b""

    run(scenario)


def test_a_chunked_answer_that_is_no_stream_and_dies_between_chunks_closes_hard(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT, path="/v1/audio/speech")
        request = await world.engine.next_request()
        request.send(b"HTTP/1.1 200 OK\r\ncontent-type: audio/wav\r\ntransfer-encoding: chunked\r\n\r\n")
        request.chunk(b"RIFF\n\n")
        await client.head()
        assert await client.chunk() == b"RIFF\n\n"
        request.abort()
        assert await client.closed() == b""

    run(scenario)


def test_death_inside_an_event_closes_hard(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events(framing="close")
        request.send(b'data: {"id":')
        await client.head()
        assert await client.chunk() == b'data: {"id":'
        request.end()
        assert await client.closed() == b""

    run(scenario)


def test_a_short_content_length_closes_hard(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        request = await world.engine.next_request()
        request.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
        await client.head()
        request.end()
        assert await client.closed() == b"{"
        assert (await world.record()).outcome == "upstream_failed"

    run(scenario)


def test_a_json_answer_that_ends_with_the_connection_gets_a_length(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        request = await world.engine.next_request()
        request.send(b"HTTP/1.0 200 OK\r\nContent-type: application/json\r\n\r\n" + ANSWER[:20])
        await world.turn()
        request.send(ANSWER[20:])
        request.end()
        status, headers, body = await client.answer()
        assert (status, headers["content-length"], body) == (200, str(len(ANSWER)), ANSWER)

    run(scenario)


def test_a_json_answer_cut_by_the_end_of_the_connection_is_refused(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        request = await world.engine.next_request()
        request.send(b"HTTP/1.0 200 OK\r\nContent-type: application/json\r\n\r\n" + ANSWER[:20])
        request.end()
        assert await client.error() == (502, "answer_cut")

    run(scenario)


def test_a_large_json_answer_without_length_that_is_cut_closes_hard(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        request = await world.engine.next_request()
        request.send(b'HTTP/1.0 200 OK\r\nContent-type: application/json\r\n\r\n{"a":"' + b"x" * (2**20 + 10))
        request.end()
        status, headers = await client.head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        assert not (await client.closed()).endswith(b"0\r\n\r\n")

    run(scenario)


def test_interim_answers_are_skipped(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        request = await world.engine.next_request()
        request.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
        request.answer(ANSWER)
        assert (await client.answer())[2] == ANSWER

    run(scenario)


def test_bytes_after_the_answer_cost_the_engine_its_connection(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        request = await world.engine.next_request()
        request.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n")
        assert (await client.answer())[2] == b"{}"
        await request.connection.gone

    run(scenario)


def test_bytes_after_a_chunked_or_empty_answer_do_too(run: Run) -> None:
    async def scenario(world: World) -> None:
        for raw in (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n",
        ):
            client = await world.client()
            client.post(CHAT)
            request = await world.engine.next_request()
            request.send(raw)
            await client.head()
            await request.connection.gone

    run(scenario)


def test_bytes_between_two_answers_cost_the_engine_its_connection(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        first = await world.engine.next_request()
        first.answer(ANSWER)
        await client.answer()
        first.send(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")
        await first.connection.gone
        client.post(CHAT)
        second = await world.engine.next_request()
        second.answer(ANSWER)
        assert (await client.answer())[2] == ANSWER

    run(scenario)


def test_an_answer_that_is_no_http_is_refused(run: Run) -> None:
    async def scenario(world: World) -> None:
        for raw in (
            b"220 smtp ready\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nx: a\nset-cookie: b\r\n\r\n",
        ):
            client = await world.client()
            client.post(CHAT)
            request = await world.engine.next_request()
            request.send(raw)
            assert await client.error() == (502, "bad_answer"), raw
            await request.connection.gone

    run(scenario)


def test_an_answer_without_a_body_has_none(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        (await world.engine.next_request()).send(b"HTTP/1.1 204 No Content\r\n\r\n")
        status, headers = await client.head()
        assert status == 204
        assert "content-length" not in headers
        client.post(CHAT)
        (await world.engine.next_request()).answer(ANSWER)
        assert (await client.answer())[0] == 200

    run(scenario)


def test_hop_by_hop_and_cors_fields_of_the_engine_stop_here(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        (await world.engine.next_request()).send(
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nX-Request-Id: theirs\r\n"
            b"Access-Control-Allow-Origin: *\r\nX-Kept: yes\r\nContent-Length: 2\r\n\r\n{}"
        )
        _, headers, _ = await client.answer()
        assert headers == {"x-kept": "yes", "x-request-id": "req-0", "content-length": "2"}

    run(scenario)
