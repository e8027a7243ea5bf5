"""What an engine may not say, and what it may: each with its rule."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.wire import CHAT, Run, World

BODY = b'{"ok":true}'
COUNT = b"content-length: 11\r\n"


def ans(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK", body: bytes = BODY) -> bytes:
    """An answer out of its parts."""
    return line + b"\r\n" + b"".join(fields or (COUNT,)) + b"\r\n" + body


TE = b"transfer-encoding: chunked\r\n"
CHUNKED = b"b\r\n" + BODY + b"\r\n0\r\n\r\n"

REFUSED = {
    "no HTTP": ("RFC 9112 4", b"SSH-2.0-OpenSSH_9\r\n\r\n"),
    "HTTP/0.9": ("RFC 9112 4", b"<html>\r\n\r\n"),
    "HTTP/2.0": ("RFC 9110 6.2", ans(line=b"HTTP/2.0 200 OK")),
    "HTTP/1.2": ("RFC 9110 6.2", ans(line=b"HTTP/1.2 200 OK")),
    "no status": ("RFC 9112 4", ans(line=b"HTTP/1.1 OK")),
    "a status of two digits": ("RFC 9110 15", ans(line=b"HTTP/1.1 20 OK")),
    "a status of four digits": ("RFC 9110 15", ans(line=b"HTTP/1.1 2000 OK")),
    "status 600": ("RFC 9110 15", ans(line=b"HTTP/1.1 600 Mine")),
    "status 999": ("RFC 9110 15", ans(line=b"HTTP/1.1 999 Mine")),
    "status 099": ("RFC 9110 15", ans(line=b"HTTP/1.1 099 Mine")),
    "101 that nobody asked for": ("RFC 9110 15.2.2", ans(b"upgrade: x\r\n", line=b"HTTP/1.1 101 Switching")),
    "two lengths": ("RFC 9112 6.3", ans(COUNT, b"content-length: 12\r\n")),
    "two lengths alike": ("RFC 9112 6.3", ans(COUNT, COUNT)),
    "a list of lengths": ("RFC 9112 6.3", ans(b"content-length: 11, 11\r\n")),
    "a signed length": ("RFC 9110 8.6", ans(b"content-length: +11\r\n")),
    "a length beyond 64 bits": ("RFC 9110 8.6", ans(b"content-length: 18446744073709551617\r\n")),
    "length and chunked": ("RFC 9112 6.3", ans(COUNT, TE, body=CHUNKED)),
    "chunked and length": ("RFC 9112 6.3", ans(TE, COUNT, body=CHUNKED)),
    "chunked twice": ("RFC 9112 6.1", ans(TE, TE, body=CHUNKED)),
    "gzip and chunked": ("RFC 9112 6.1", ans(b"transfer-encoding: gzip, chunked\r\n", body=CHUNKED)),
    "gzip alone": ("RFC 9112 6.1", ans(b"transfer-encoding: gzip\r\n")),
    "identity": ("RFC 9112 6.1", ans(b"transfer-encoding: identity\r\n")),
    "chunked on HTTP/1.0": ("RFC 9112 6.1", ans(TE, line=b"HTTP/1.0 200 OK", body=CHUNKED)),
    "a folded field": ("RFC 9112 5.2", ans(b"x-a: b\r\n c\r\n", COUNT)),
    "a space before the colon": ("RFC 9112 5.1", ans(b"x-a : b\r\n", COUNT)),
    "a bare line feed in a field": ("RFC 9112 2.2", ans(b"x-a: b\nx-c: d\r\n", COUNT)),
    "a bare carriage return in a field": ("RFC 9112 2.2", ans(b"x-a: b\rx-c: d\r\n", COUNT)),
    "a zero byte in a field": ("RFC 9110 5.5", ans(b"x-a: \0\r\n", COUNT)),
    "a field without a name": ("RFC 9110 5.1", ans(b": b\r\n", COUNT)),
    "a field without a colon": ("RFC 9112 5", ans(b"x-a\r\n", COUNT)),
    "a head without end": ("front: limits", b"HTTP/1.1 200 OK\r\nx-a: " + b"b" * 70_000),
    "interim answers without end": ("RFC 9110 15.2", b"HTTP/1.1 102 Processing\r\n\r\n" * 20),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_502_and_costs_the_engine_its_connection(run: Run, what: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        request = await world.engine.next_request()
        request.send(REFUSED[what][1])
        assert await client.error() == (502, "bad_answer")
        await request.connection.gone
        assert world.upstreams.leases[0].outcome == "upstream_failed"
        client.post(CHAT)  # the client's own connection is none the worse
        (await world.engine.next_request()).answer(BODY)
        assert (await client.answer())[2] == BODY

    run(scenario)


HARD = {
    "a malformed chunk size": ("RFC 9112 7.1", ans(TE, body=b"xyz\r\nhello\r\n0\r\n\r\n")),
    "a chunk longer than its size": ("RFC 9112 7.1", ans(TE, body=b"2\r\nhello\r\n0\r\n\r\n")),
    "a bare line feed after a chunk": ("RFC 9112 2.2", ans(TE, body=b"5\r\nhello\n0\r\n\r\n")),
    "a malformed trailer": ("RFC 9112 7.1.2", ans(TE, body=b"5\r\nhello\r\n0\r\nno field\r\n\r\n")),
    "an endless size line": ("RFC 9112 7.1", ans(TE, body=b"5;" + b"a" * 2000)),
}


@pytest.mark.parametrize("what", HARD)
def test_framing_that_breaks_under_way_closes_hard(run: Run, what: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        (await world.engine.next_request()).send(HARD[what][1])
        assert (await client.head())[0] == 200
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.chunks()
        assert (await world.record()).outcome == "upstream_failed"

    run(scenario)


PASSED = {
    "no reason phrase": ("RFC 9112 4", ans(line=b"HTTP/1.1 200 "), 200, BODY),
    "an unknown status": ("RFC 9110 15", ans(line=b"HTTP/1.1 299 Mine"), 299, BODY),
    "100 before it": ("RFC 9110 15.2.1", b"HTTP/1.1 100 Continue\r\n\r\n" + ans(), 200, BODY),
    "102 before it": ("RFC 9110 15.2", b"HTTP/1.1 102 Processing\r\n\r\n" + ans(), 200, BODY),
    "103 before it": ("RFC 8297 2", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + ans(), 200, BODY),
    "chunked": ("RFC 9112 7.1", ans(TE, body=CHUNKED), 200, BODY),
    "an extension": ("RFC 9112 7.1.1", ans(TE, body=b"b;a=1\r\n" + BODY + b"\r\n0\r\n\r\n"), 200, BODY),
    "a trailer": ("RFC 9112 7.1.2", ans(TE, body=CHUNKED[:-2] + b"x-t: 1\r\n\r\n"), 200, BODY),
    "a coding in upper case": ("RFC 9112 7", ans(b"Transfer-Encoding: CHUNKED\r\n", body=CHUNKED), 200, BODY),
    "an empty body": ("RFC 9112 6.3", ans(b"content-length: 0\r\n", body=b""), 200, b""),
    "a redirect": ("RFC 9110 15.4", ans(b"location: /x\r\n", COUNT, line=b"HTTP/1.1 307 Away"), 307, BODY),
}


@pytest.mark.parametrize("split", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("what", PASSED)
def test_it_passes_and_the_engines_connection_is_kept(run: Run, what: str, *, split: bool) -> None:
    _, raw, status, body = PASSED[what]

    async def scenario(world: World) -> None:
        client = await world.client()
        for _ in range(2):
            client.post(CHAT)
            request = await world.engine.next_request()
            for i in range(0, len(raw), 1 if split else len(raw)):
                request.send(raw[i : i + 1] if split else raw)
                if split:
                    await world.turn()
            got = await client.answer()
            assert (got[0], got[2]) == (status, body)
            assert "x-t" not in got[1]
        assert len(world.engine.connections) == 1

    run(scenario)


EMPTY = {
    "204": ("RFC 9110 15.3.5", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "204 with a length": ("RFC 9110 8.6", b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"),
    "204 with a coding": ("RFC 9112 6.1", b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n"),
    "304": ("RFC 9110 15.4.5", b'HTTP/1.1 304 Not Modified\r\netag: "a"\r\n\r\n'),
}


@pytest.mark.parametrize("what", EMPTY)
def test_an_answer_without_a_body_has_no_framing_either(run: Run, what: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        (await world.engine.next_request()).send(EMPTY[what][1])
        status, headers = await client.head()
        assert status == int(what[:3])
        assert not {"content-length", "transfer-encoding"} & headers.keys()
        client.post(CHAT)
        (await world.engine.next_request()).answer(BODY)
        assert (await client.answer())[2] == BODY

    run(scenario)


NOT_KEPT = {
    "close": ("RFC 9112 9.6", ans(b"connection: close\r\n", COUNT)),
    "close, then keep-alive": (
        "RFC 9112 9.6",
        ans(b"connection: close\r\n", b"connection: keep-alive\r\n", COUNT),
    ),
    "close in a list": ("RFC 9110 7.6.1", ans(b"connection: X-A, CLOSE\r\n", COUNT)),
    "HTTP/1.0": ("RFC 9112 9.3", ans(line=b"HTTP/1.0 200 OK")),
    "HTTP/1.0 keep-alive": (
        "RFC 9112 9.3",
        ans(b"connection: keep-alive\r\n", COUNT, line=b"HTTP/1.0 200 OK"),
    ),
    "bytes after the body": ("RFC 9112 6.3", ans(body=BODY + b"HTTP/1.1 200 OK\r\n\r\n")),
    "bytes after the last chunk": ("RFC 9112 6.3", ans(TE, body=CHUNKED + b"x")),
}


@pytest.mark.parametrize("what", NOT_KEPT)
def test_the_engines_connection_is_not_used_again(run: Run, what: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        for _ in range(2):
            client.post(CHAT)
            request = await world.engine.next_request()
            request.send(NOT_KEPT[what][1])
            status, headers, body = await client.answer()
            assert (status, body) == (200, BODY)
            assert "connection" not in headers
            await request.connection.gone
        assert len(world.engine.connections) == 2

    run(scenario)


def test_fields_that_connection_names_stop_here(run: Run) -> None:
    """RFC 9110 7.6.1."""

    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        request = await world.engine.next_request()
        request.send(
            ans(
                b"connection: X-Hop, keep-alive\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nx-end: 2 \t\r\n",
                b"proxy-connection: keep-alive\r\nupgrade: h2c\r\ntrailer: x\r\n",
                COUNT,
            )
        )
        _, headers, _ = await client.answer()
        assert headers == {"x-end": "2", "x-request-id": "req-0", "content-length": "11"}

    run(scenario)


def test_an_engine_that_answers_before_it_has_read_the_body_is_heard(run: Run) -> None:
    """RFC 9112 9.3: an answer may come before the request's end; the connection is not used again."""

    async def scenario(world: World) -> None:
        client = await world.client()
        body = b'{"model":"m","x":"' + b"y" * 2**22 + b'"}'
        client.post(body)
        while not world.engine.connections:
            await world.turn()
        connection = world.engine.connections[0]
        connection.transport.pause_reading()
        connection.transport.write(
            b'HTTP/1.1 413 Too Large\r\ncontent-length: 15\r\n\r\n{"detail":"big"}'[:-1]
        )
        status, _, answer = await client.answer()
        assert status == 413
        assert "error" in json.loads(answer)
        connection.transport.abort()

    run(scenario)
