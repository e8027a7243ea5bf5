"""What is no inference path goes to the control app over its own socket pair, and comes back as it is."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.wire import CHAT, Run, World


async def request_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    raw = await reader.readuntil(b"\r\n\r\n")
    line, *fields = raw[:-4].decode().split("\r\n")
    return line, dict(field.lower().split(": ", 1) for field in fields)


@pytest.mark.parametrize(
    "line",
    ["GET /v1/models", "GET /status?x=1", "GET /v1/chat/completions", "DELETE /api/x", "OPTIONS *", "GET /"],
)
def test_the_control_app_gets_method_target_and_host_as_they_are(run: Run, line: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(
            f"{line} HTTP/1.1\r\nHost: box:8080\r\nCookie: a=b\r\nAccept-Encoding: gzip\r\n"
            "Authorization: Bearer k\r\nX-Modelyard-Caller: root\r\n\r\n".encode()
        )
        reader, writer, behind = await world.control.next_request()
        got, headers = await request_head(reader)
        assert got == f"{line} HTTP/1.1"
        assert headers == {
            "host": "box:8080", "cookie": "a=b", "accept-encoding": "gzip", "x-request-id": "req-0",
            "connection": "close",
        }  # fmt: skip
        assert behind == "127.0.0.1"
        writer.write(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nServer: control\r\nConnection: close\r\n\r\nnope"
        )
        status, headers, body = await client.answer()
        assert (status, body) == (404, b"nope")
        assert "connection" not in headers
        writer.close()
        record = await world.record()
        assert (record.outcome, record.status, record.model) == ("control", 404, "")

    run(scenario)


def test_the_authority_of_an_absolute_target_is_the_host(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(b"GET http://box:1?x=y HTTP/1.1\r\nHost: other\r\n\r\n")
        reader, writer, _ = await world.control.next_request()
        line, headers = await request_head(reader)
        assert (line, headers["host"]) == ("GET /?x=y HTTP/1.1", "box:1")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await client.answer()
        writer.close()

    run(scenario)


def test_a_body_for_the_control_app_goes_along(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(b"{}", path="/api/models/m/load")
        reader, writer, _ = await world.control.next_request()
        _, headers = await request_head(reader)
        assert headers["content-length"] == "2"
        assert await reader.readexactly(2) == b"{}"
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        assert (await client.answer())[0] == 202
        writer.close()

    run(scenario)


def test_head_has_a_length_and_no_body(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(b"HEAD /status HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        reader, writer, _ = await world.control.next_request()
        assert (await request_head(reader))[0] == "HEAD /status HTTP/1.1"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")
        status, headers = await client.head()
        assert (status, headers["content-length"]) == (200, "1234")
        writer.close()
        reader, writer, _ = await world.control.next_request()
        assert (await request_head(reader))[0] == "GET /next HTTP/1.1"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        assert (await client.answer())[2] == b"x"
        writer.close()

    run(scenario)


def test_the_control_apps_events_stream_and_end_with_the_client(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(b"GET /api/events HTTP/1.1\r\nHost: a\r\n\r\n")
        reader, writer, _ = await world.control.next_request()
        await request_head(reader)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await client.head()
        for i in range(3):
            event = b"data: %d\n\n" % i
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            assert await client.chunk() == event
        world.pass_time(3600)  # no deadline of the front's
        client.close()
        assert await reader.read() == b""
        writer.close()

    run(scenario)


def test_the_end_of_control_events_needs_no_mark(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(b"GET /api/events HTTP/1.1\r\nHost: a\r\n\r\n")
        reader, writer, _ = await world.control.next_request()
        await request_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        writer.close()
        await client.head()
        assert await client.chunks() == b"data: 1\n\n"

    run(scenario)


def test_a_large_file_passes_whole(run: Run) -> None:
    body = bytes(range(256)) * 16384

    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(b"GET /static/big HTTP/1.1\r\nHost: a\r\n\r\n")
        reader, writer, _ = await world.control.next_request()
        await request_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert (await client.answer())[2] == body
        writer.close()

    run(scenario)


def test_a_control_app_that_drops_the_line_is_said(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(b"GET /status HTTP/1.1\r\nHost: a\r\n\r\n")
        _, writer, _ = await world.control.next_request()
        writer.close()
        assert await client.error() == (502, "bad_answer")
        client.post(CHAT)
        (await world.engine.next_request()).answer(b"{}")
        assert (await client.answer())[0] == 200

    run(scenario)


def test_errors_of_the_control_app_are_not_touched(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(b"GET /nope HTTP/1.1\r\nHost: a\r\n\r\n")
        reader, writer, _ = await world.control.next_request()
        await request_head(reader)
        writer.write(b'HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\n\r\n{"detail":"no"}')
        assert (await client.answer())[2] == b'{"detail":"no"}'
        writer.close()

    run(scenario)
