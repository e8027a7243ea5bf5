"""Connections: persistence, pipelining, half-close, 100 Continue, HEAD, OPTIONS; each with its rule."""

from __future__ import annotations

import asyncio
import json

import pytest

from router.ports import FrontLimits, Refusal
from tests.conformance.requests import CHUNKED, HOST, LENGTH, TE, req
from tests.support.wire import CHAT, STREAM, Run, World

BODY = b'{"ok":true}'


def test_a_connection_persists_by_default(run: Run) -> None:
    """RFC 9112 9.3."""

    async def scenario(world: World) -> None:
        client = await world.client()
        for _ in range(3):
            client.post(CHAT)
            (await world.engine.next_request()).answer(BODY)
            assert "connection" not in (await client.answer())[1]

    run(scenario)


@pytest.mark.parametrize("option", ["close", "CLOSE", "keep-alive, close", "close, x-a", " close "])
def test_close_is_obeyed_and_said(run: Run, option: str) -> None:
    """RFC 9112 9.6; what is pipelined after it is never read as a request."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT, extra=f"Connection: {option}\r\n")
        client.post(CHAT)
        (await world.engine.next_request()).answer(BODY)
        assert (await client.answer())[1]["connection"] == "close"
        assert await client.closed() == b""
        assert world.engine.requests.empty()

    run(scenario)


def test_an_http_1_0_client_is_closed_even_if_it_asks_to_stay(run: Run) -> None:
    """RFC 9112 9.3, the strict reading: persistence of HTTP/1.0 is not spoken."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT, version="1.0", extra="Connection: keep-alive\r\n")
        (await world.engine.next_request()).answer(BODY)
        status, headers, body = await client.answer()
        assert (status, headers["connection"], body) == (200, "close", BODY)
        assert await client.closed() == b""

    run(scenario)


def test_an_http_1_0_client_gets_no_chunks_and_no_100(run: Run) -> None:
    """RFC 9112 6.1 and RFC 9110 10.1.1."""

    async def scenario(world: World) -> None:
        client = await world.client()
        head = b"POST /v1/chat/completions HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        client.send(head % len(CHAT))
        await world.turn()
        client.send(CHAT)
        request = await world.engine.next_request()
        request.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        request.chunk(BODY)
        request.send(b"0\r\n\r\n")
        status, headers = await client.head()
        assert status == 200
        assert "transfer-encoding" not in headers
        assert await client.closed() == BODY

    run(scenario)


@pytest.mark.parametrize("count", [2, 5])
def test_pipelined_requests_are_answered_in_order(run: Run, count: int) -> None:
    """RFC 9112 9.3.2."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(req() * count)
        for n in range(count):
            request = await world.engine.next_request()
            assert world.engine.requests.empty()  # one at a time
            request.answer(b"%d" % n)
            assert (await client.answer())[2] == b"%d" % n

    run(scenario)


def test_a_pipelined_request_that_is_refused_ends_the_connection_after_those_before_it(run: Run) -> None:
    """RFC 9112 9.3.2: answers keep their order whatever they are."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(req() + req(LENGTH, TE, body=CHUNKED) + req())
        (await world.engine.next_request()).answer(BODY)
        assert (await client.answer())[2] == BODY
        assert (await client.error())[0] == 400
        assert await client.closed() == b""
        assert world.engine.requests.empty()

    run(scenario)


@pytest.mark.parametrize("inner", [b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n", b"0\r\n\r\n" + req()])
def test_a_request_inside_a_body_is_a_body(run: Run, inner: bytes) -> None:
    """RFC 9112 11.2: one reading of where a body ends."""

    async def scenario(world: World) -> None:
        client = await world.client()
        body = b'{"model":"m","x":' + json.dumps(inner.decode()).encode() + b"}"
        client.post(body)
        request = await world.engine.next_request()
        assert request.body == body
        request.answer(BODY)
        assert (await client.answer())[2] == BODY
        await world.turn()
        assert len(world.records) == 1

    run(scenario)


def test_bytes_after_a_body_are_the_next_request(run: Run) -> None:
    """RFC 9112 6.3."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(req() + b"garbage\r\n\r\n")
        (await world.engine.next_request()).answer(BODY)
        assert (await client.answer())[0] == 200
        assert (await client.error())[0] == 400
        assert await client.closed() == b""

    run(scenario)


def test_continue_comes_once_and_before_the_body(run: Run) -> None:
    """RFC 9110 10.1.1."""

    async def scenario(world: World) -> None:
        for fields, body in ((LENGTH, CHAT), (TE, CHUNKED)):
            client = await world.client()
            client.send(req(fields, b"Expect: 100-continue\r\n", body=b""))
            assert await client.head() == (100, {})
            client.send(body)
            (await world.engine.next_request()).answer(BODY)
            assert (await client.answer())[2] == BODY

    run(scenario)


def test_no_continue_for_a_body_of_no_bytes(run: Run) -> None:
    """RFC 9110 10.1.1: a server may leave it out when there is nothing to wait for."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(req(b"Content-Length: 0\r\n", b"Expect: 100-continue\r\n", body=b""))
        assert (await client.error())[0] == 400

    run(scenario)


@pytest.mark.parametrize(
    ("why", "status"),
    [("key", 401), ("length", 413), ("coding", 415), ("websocket", 501)],
)
def test_a_refusal_comes_instead_of_continue(run: Run, why: str, status: int) -> None:
    """RFC 9110 10.1.1: a final status, and the connection is closed for the body that may come."""
    fields = {
        "key": LENGTH,
        "length": b"Content-Length: 99999999999\r\n",
        "coding": LENGTH + b"Content-Encoding: br\r\n",
        "websocket": LENGTH + b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    }

    async def scenario(world: World) -> None:
        if why == "key":
            world.objection = Refusal(401, "invalid_api_key", "no such key")
        client = await world.client()
        client.send(req(fields[why], b"Expect: 100-continue\r\n", body=b""))
        got, headers, _ = await client.answer()
        assert (got, headers["connection"]) == (status, "close")
        assert await client.closed() == b""

    run(scenario)


def test_a_client_that_half_closes_is_taken_to_be_gone(run: Run) -> None:
    """RFC 9112 9.6, the strict reading: its end looks the same as that of a client that has left, and an
    engine must not work for nobody."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        client.writer.write_eof()
        await request.connection.gone
        assert (await world.record()).outcome == "client_gone"
        assert await client.closed() == b""

    run(scenario)


def test_a_half_close_right_after_a_refused_request_still_gets_the_refusal(run: Run) -> None:
    """RFC 9112 9.6."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(b"[1]")
        client.writer.write_eof()
        assert await client.error() == (400, "invalid_json")
        assert await client.closed() == b""

    run(scenario)


@pytest.mark.parametrize(
    "part", [b"PO", b"POST / HTTP/1.1\r\nHo", req(body=CHAT[:5]), req(TE, body=b"5\r\nhe"), req(TE, body=b"")]
)
def test_an_end_inside_a_request_is_the_end_of_it(run: Run, part: bytes) -> None:
    """RFC 9112 8: an incomplete request is not answered and reaches nobody."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(part)
        await world.turn()
        client.writer.write_eof()
        assert await client.closed() == b""
        assert world.engine.requests.empty()

    run(scenario)


@pytest.mark.parametrize("part", [b"PO", req(body=CHAT[:5]), req(TE, body=b"5\r\nhe"), req()])
def test_a_reset_inside_a_request_leaves_nothing(run: Run, part: bytes) -> None:
    """RFC 9112 9.5."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(part)
        await world.turn()
        client.abort()
        while world.front.counters.connections:
            await world.turn()

    run(scenario)


def test_head_is_answered_by_its_head_alone(run: Run) -> None:
    """RFC 9110 9.3.2; and the connection goes on."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(b"HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n")
        reader, writer, _ = await world.control.next_request()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HEAD /health HTTP/1.1\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        status, headers = await client.head()
        assert (status, headers["content-length"]) == (200, "1000")
        writer.close()
        client.post(CHAT)
        (await world.engine.next_request()).answer(BODY)
        assert (await client.answer())[2] == BODY

    run(scenario)


def test_a_refused_head_has_no_body(run: Run) -> None:
    """RFC 9110 9.3.2."""

    async def scenario(world: World) -> None:
        world.objection = Refusal(401, "invalid_api_key", "no such key")
        client = await world.client()
        client.send(b"HEAD /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        status, headers = await client.head()
        assert status == 401
        assert int(headers["content-length"]) > 0
        assert await client.closed() == b""

    run(scenario)


@pytest.mark.parametrize(
    "line", [b"OPTIONS * HTTP/1.1", b"OPTIONS /v1/models HTTP/1.1", b"DELETE /x HTTP/1.1"]
)
def test_what_is_no_inference_is_the_control_apps(run: Run, line: bytes) -> None:
    """RFC 9110 9.3.7 and RFC 9112 3.2.4: the target goes through as it is."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(line + b"\r\nHost: a\r\n\r\n")
        reader, writer, _ = await world.control.next_request()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(line + b"\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()
        assert (await client.head())[0] == 204

    run(scenario)


def test_fields_are_told_apart_whatever_their_case(run: Run) -> None:
    """RFC 9110 5.1; and a value's end is where its white space begins (5.5)."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(req(LENGTH, b"x-A:  b c \t \r\nX-a: d\r\n"))
        request = await world.engine.next_request()
        assert request.headers[b"x-a"] == [b"b c", b"d"]
        request.answer(BODY)
        await client.answer()

    run(scenario)


def test_a_flood_of_empty_lines_costs_no_time(run: Run) -> None:
    """RFC 9112 2.2: the strict reading skips a few."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(b"\r\n" * 100_000)
        async with asyncio.timeout(2):
            assert (await client.error())[0] == 400

    run(scenario)


def test_a_head_that_stops_just_below_the_limit_is_waited_for(run: Run) -> None:
    """front: limits. RFC 9112 3: a limit of its own for what is not yet whole."""

    async def scenario(world: World) -> None:
        client = await world.client()
        start = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + LENGTH
        filler = b"X-A: " + b"a" * (1000 - len(start) - 9) + b"\r\n"
        client.send(start + filler)
        await world.turn()
        client.send(b"\r\n" + CHAT)
        (await world.engine.next_request()).answer(BODY)
        assert (await client.answer())[0] == 200

    run(scenario, limits=FrontLimits(header_bytes=1000))
