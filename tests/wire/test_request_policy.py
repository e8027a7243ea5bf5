"""What a request must look like: front.md's policy, on raw sockets."""

from __future__ import annotations

import json

import pytest

from router.ports import Refusal
from tests.support.wire import CHAT, Run, World

HOST = b"Host: modelyard\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(CHAT)
OK = b"{}"


def request(*fields: bytes, line: bytes = b"POST /v1/chat/completions HTTP/1.1", body: bytes = CHAT) -> bytes:
    return line + b"\r\n" + b"".join(fields) + b"\r\n" + body


CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(CHAT), CHAT)
TE = b"Transfer-Encoding: chunked\r\n"

REFUSED = {
    "no host": (request(LENGTH), 400),
    "two hosts": (request(HOST, b"Host: other\r\n", LENGTH), 400),
    "a host with a space": (request(b"Host: a b\r\n", LENGTH), 400),
    "length and chunked": (request(HOST, LENGTH, TE, body=CHUNKED), 400),
    "chunked and length": (request(HOST, TE, LENGTH, body=CHUNKED), 400),
    "two lengths": (request(HOST, LENGTH, LENGTH), 400),
    "two lengths in one": (request(HOST, b"Content-Length: 3, 3\r\n"), 400),
    "a signed length": (request(HOST, b"Content-Length: +3\r\n"), 400),
    "another coding": (request(HOST, b"Transfer-Encoding: gzip, chunked\r\n", body=CHUNKED), 501),
    "identity": (request(HOST, b"Transfer-Encoding: identity\r\n"), 400),
    "chunked twice": (request(HOST, TE, TE, body=CHUNKED), 400),
    "xchunked": (request(HOST, b"Transfer-Encoding: xchunked\r\n", body=CHUNKED), 400),
    "chunked on 1.0": (request(HOST, TE, line=b"POST / HTTP/1.0", body=CHUNKED), 400),
    "a space before the colon": (request(HOST, b"Content-Length : 3\r\n"), 400),
    "a folded field": (request(HOST, b"X-A: b\r\n c\r\n", LENGTH), 400),
    "a bare line feed": (request(HOST, b"X-A: b\nX-C: d\r\n", LENGTH), 400),
    "a bare carriage return": (request(HOST, b"X-A: b\rX-C: d\r\n", LENGTH), 400),
    "a zero byte": (request(HOST, b"X-A: b\0\r\n", LENGTH), 400),
    "two authorizations": (request(HOST, b"Authorization: a\r\nAuthorization: b\r\n", LENGTH), 400),
    "a fragment": (request(HOST, LENGTH, line=b"POST /v1/chat/completions#x HTTP/1.1"), 400),
    "a relative target": (request(HOST, LENGTH, line=b"POST v1 HTTP/1.1"), 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/2.0": (request(HOST, LENGTH, line=b"POST / HTTP/2.0"), 505),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "an unknown method": (request(HOST, LENGTH, line=b"FETCH / HTTP/1.1"), 400),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "another expectation": (request(HOST, LENGTH, b"Expect: 200-maybe\r\n"), 417),
    "a tunnel": (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
    "a websocket": (
        b"GET /v1/elsewhere HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        501,
    ),
    "a compressed body": (request(HOST, LENGTH, b"Content-Encoding: gzip\r\n"), 415),
    "a malformed chunk size": (request(HOST, TE, body=b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
    "a chunk size with an underscore": (request(HOST, TE, body=b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"), 400),
    "a chunk longer than its size": (request(HOST, TE, body=b"2\r\nhello\r\n0\r\n\r\n"), 400),
    "a bare line feed in a chunk": (request(HOST, TE, body=b"5\nhello\n0\n\n"), 400),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_and_nothing_reaches_an_engine(run: Run, what: str) -> None:
    raw, status = REFUSED[what]

    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(raw)
        got, _, body = await client.answer()
        assert got == status
        error = json.loads(body)["error"]
        assert error["message"]
        assert error["code"]
        assert world.engine.requests.empty()
        assert (await world.record()).outcome == "refused"

    run(scenario)


ACCEPTED = {
    "plain": request(HOST, LENGTH),
    "chunked": request(HOST, TE, body=CHUNKED),
    "chunked with an extension": request(HOST, TE, body=b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(CHAT), CHAT)),
    "upper-case coding": request(HOST, b"Transfer-Encoding: CHUNKED\r\n", body=CHUNKED),
    "an offer of h2c": request(
        HOST, LENGTH, b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
    ),
    "an empty line before": b"\r\n\r\n" + request(HOST, LENGTH),
    "an absolute target": request(
        b"Host: x\r\n", LENGTH, line=b"POST http://h:1/v1/chat/completions HTTP/1.1"
    ),
    "HTTP/1.0 without a host": request(LENGTH, line=b"POST /v1/chat/completions HTTP/1.0"),
    "without the version": request(HOST, LENGTH, line=b"POST /chat/completions HTTP/1.1"),
    "identity encoding": request(HOST, LENGTH, b"Content-Encoding: identity\r\n"),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_it_is_taken_and_the_body_reaches_the_engine_whole(run: Run, what: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(ACCEPTED[what])
        received = await world.engine.next_request()
        assert received.line == b"POST /v1/chat/completions HTTP/1.1"
        assert received.body == CHAT
        assert received.header("content-length") == str(len(CHAT))
        assert received.header("transfer-encoding") is None
        assert received.header("upgrade") is None
        received.answer(OK)
        assert (await client.answer())[0] == 200

    run(scenario)


@pytest.mark.parametrize("what", ["plain", "chunked", "an offer of h2c", "an empty line before"])
def test_any_split_of_the_bytes_gives_the_same_request(run: Run, what: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        raw = ACCEPTED[what]
        for i in range(len(raw)):
            client.send(raw[i : i + 1])
            await world.turn()
        received = await world.engine.next_request()
        assert received.body == CHAT
        received.answer(OK)
        assert (await client.answer())[0] == 200

    run(scenario)


def test_credentials_and_hop_by_hop_fields_do_not_reach_the_engine(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.key = "engine-key"
        client = await world.client()
        client.send(
            request(
                HOST, LENGTH, b"Authorization: Bearer mine\r\nX-Api-Key: mine\r\nCookie: s=1\r\n",
                b"Connection: keep-alive, X-Secret\r\nX-Secret: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\n",
                b"Proxy-Authorization: x\r\nX-Modelyard-Caller: root\r\nAccept-Encoding: gzip\r\n",
                b"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nX-Kept: yes\r\n",
            )
        )  # fmt: skip
        received = await world.engine.next_request()
        assert set(received.headers) == {
            b"host", b"authorization", b"content-length", b"traceparent", b"x-kept", b"x-request-id"
        }  # fmt: skip
        assert received.header("authorization") == "Bearer engine-key"
        assert received.header("host") == f"127.0.0.1:{world.engine.port}"
        received.answer(OK)
        await client.answer()

    run(scenario)


def test_a_field_that_only_looks_like_a_length_keeps_its_own_value(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        for strength in ("5", "66", "7"):
            client.send(request(HOST, f"X-Strength: {strength}\r\n".encode(), LENGTH))
            received = await world.engine.next_request()
            assert received.header("x-strength") == strength
            received.answer(OK)
            await client.answer()

    run(scenario)


def test_requests_that_share_a_head_keep_their_own_lengths_and_bodies(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        for n in (1, 22, 333, 4444, 5):
            body = b'{"model":"m","n":%d}' % n
            client.post(body)
            received = await world.engine.next_request()
            assert (received.body, received.header("content-length")) == (body, str(len(body)))
            received.answer(b"x" * n)
            assert (await client.answer())[2] == b"x" * n

    run(scenario)


def test_trailers_of_the_client_are_dropped(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(request(HOST, TE, body=CHUNKED[:-2] + b"Authorization: Bearer x\r\nX-T: 1\r\n\r\n"))
        received = await world.engine.next_request()
        assert received.header("authorization") is None
        assert received.header("x-t") is None
        received.answer(OK)
        assert (await client.answer())[0] == 200

    run(scenario)


def test_a_sane_request_id_goes_through_and_out(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        for given, expected in (("abc-1.2:3", "abc-1.2:3"), ("a b", "req-1"), ("x" * 200, "req-2")):
            client.post(CHAT, extra=f"X-Request-Id: {given}\r\n")
            received = await world.engine.next_request()
            assert received.header("x-request-id") == expected
            received.answer(OK)
            assert (await client.answer())[1]["x-request-id"] == expected
        assert [record.request_id for record in world.records] == ["abc-1.2:3", "req-1", "req-2"]

    run(scenario)


def test_expect_100_continue_is_answered_before_the_body(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(request(HOST, LENGTH, b"Expect: 100-continue\r\n", body=b""))
        assert (await client.head())[0] == 100
        client.send(CHAT)
        received = await world.engine.next_request()
        assert received.header("expect") is None
        received.answer(OK)
        assert (await client.answer())[0] == 200

    run(scenario)


def test_a_refusal_comes_before_100_continue(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.objection = Refusal(401, "invalid_api_key", "no such key")
        client = await world.client()
        client.send(request(HOST, LENGTH, b"Expect: 100-continue\r\n", body=b""))
        assert await client.error() == (401, "invalid_api_key")

    run(scenario)


def test_an_early_refusal_survives_a_client_that_goes_on_sending(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.objection = Refusal(401, "invalid_api_key", "no such key")
        client = await world.client()
        client.send(request(HOST, b"Content-Length: 1000000\r\n", body=b"x" * 1000))
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (401, "close")
        client.send(b"x" * 100_000)
        await client.writer.drain()
        assert await client.closed() == b""

    run(scenario)


def test_a_refused_client_that_never_leaves_is_closed(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.objection = Refusal(401, "invalid_api_key", "no such key")
        client = await world.client()
        client.send(request(HOST, b"Content-Length: 1000\r\n", body=b"x"))
        assert await client.error() == (401, "invalid_api_key")
        assert world.front.counters.connections == 1
        world.pass_time(2.1)
        while world.front.counters.connections:
            await world.turn()

    run(scenario)


def test_a_refusal_of_a_whole_request_keeps_the_connection(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(b"[1]")
        assert await client.error() == (400, "invalid_json")
        world.objection = Refusal(401, "invalid_api_key", "no such key", retry_after=1.2)
        client.post(CHAT)
        assert await client.error() == (401, "invalid_api_key")
        world.objection = None
        client.post(CHAT)
        (await world.engine.next_request()).answer(OK)
        assert (await client.answer())[0] == 200

    run(scenario)


def test_connection_close_is_honoured(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT, extra="Connection: close\r\n")
        (await world.engine.next_request()).answer(OK)
        status, headers = await client.head()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.closed() == OK

    run(scenario)


def test_the_query_goes_along_and_unversioned_paths_fit_the_engine(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", unversioned=frozenset({"/v1/tokenize"}))
        client = await world.client()
        client.post(CHAT, path="/v1/tokenize?beta=true")
        received = await world.engine.next_request()
        assert received.line == b"POST /tokenize?beta=true HTTP/1.1"
        received.answer(OK)
        await client.answer()

    run(scenario)
