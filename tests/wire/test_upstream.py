"""`/upstream/<id>/…`: whatever a model's server has, as it is, for administrators."""

from __future__ import annotations

import pytest

from router.keys import Grant, Key, Use
from router.ports import FrontLimits, Outcome
from tests.support.wire import CHAT, RawClient, Run, World

HOST = "Host: 127.0.0.1:1\r\n"
UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
ENCODED = "unsupported_encoding"


def ask(client: RawClient, method: str, target: str, extra: str = "", body: bytes = b"") -> None:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    client.send(f"{method} {target} HTTP/1.1\r\n{HOST}{length}{extra}\r\n".encode() + body)


@pytest.mark.parametrize(
    ("method", "target", "line"),
    [
        ("GET", "/upstream/m/slots?a=%20b", b"GET /slots?a=%20b HTTP/1.1"),
        ("DELETE", "/upstream/m/v1/cache/x%2Fy", b"DELETE /v1/cache/x%2Fy HTTP/1.1"),
        ("PROPFIND", "/upstream/m/", b"PROPFIND / HTTP/1.1"),
        ("POST", "/upstream/m", b"POST / HTTP/1.1"),
        ("GET", "/upstream/org/m/health", b"GET /health HTTP/1.1"),
        ("GET", "/upstream/org%2Fm/health", b"GET /health HTTP/1.1"),
        ("GET", "/upstream/org/m/sub/health", b"GET /sub/health HTTP/1.1"),
    ],
)
def test_any_method_and_path_arrives_as_it_is(run: Run, method: str, target: str, line: bytes) -> None:
    async def scenario(world: World) -> None:
        world.serve("org")
        world.serve("org/m")
        client = await world.client()
        ask(client, method, target)
        request = await world.engine.next_request()
        assert request.line == line
        assert (request.header("content-length"), request.body) == (None, b"")
        request.answer(b"fine", content_type="text/plain")
        assert (await client.answer())[2] == b"fine"
        record = await world.record()
        assert (record.outcome, record.status, record.path) == ("served", 200, target.partition("?")[0])

    run(scenario)


def test_our_credentials_end_here_and_the_engines_are_put_in(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.key = "engine-key"
        client = await world.client()
        secrets = (
            "Authorization: Bearer ours\r\nX-Api-Key: ours\r\nCookie: modelyard_1=ours\r\nX-Own: kept\r\n"
        )
        ask(client, "PUT", "/upstream/m/v1/thing", secrets + "Content-Type: text/csv\r\n", b"a,b")
        request = await world.engine.next_request()
        assert request.header("authorization") == "Bearer engine-key"
        assert (request.header("x-api-key"), request.header("cookie")) == (None, None)
        assert (request.header("x-own"), request.header("content-type")) == ("kept", "text/csv")
        assert (request.body, request.header("content-length")) == (b"a,b", "3")
        request.send(
            b"HTTP/1.1 201 Created\r\nSet-Cookie: modelyard_1=theirs\r\nX-Theirs: kept\r\n"
            b"Access-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n"
        )
        status, headers, _ = await client.answer()
        assert (status, headers["x-theirs"]) == (201, "kept")
        assert not {"set-cookie", "access-control-allow-origin"} & headers.keys()

    run(scenario)


def test_an_engines_error_is_its_own_and_the_connection_goes_on(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        ask(client, "GET", "/upstream/m/nothing")
        (await world.engine.next_request()).answer(b'{"detail":"no"}', status="404 Not Found")
        status, _, body = await client.answer()
        assert (status, body) == (404, b'{"detail":"no"}')
        client.post(CHAT)
        (await world.engine.next_request()).answer(b"{}")
        assert (await client.answer())[0] == 200

    run(scenario)


def test_events_need_no_end_mark_of_ours(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        ask(client, "GET", "/upstream/m/logs")
        request = await world.engine.next_request()
        request.begin_events()
        request.chunk(b"data: one\n\n")
        status, headers = await client.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        assert await client.chunk() == b"data: one\n\n"
        request.send(b"0\r\n\r\n")
        assert await client.chunks() == b""
        assert (await world.record()).outcome == "served"

    run(scenario)


def test_an_answer_that_is_cut_is_cut_hard(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        ask(client, "GET", "/upstream/m/logs")
        request = await world.engine.next_request()
        request.begin_events()
        request.chunk(b"data: one\n\n")
        await client.head()
        request.abort()
        assert b"0\r\n\r\n" not in await client.closed()
        assert (await world.record()).code == "answer_cut"
        assert world.upstreams.leases[0].outcome is Outcome.UPSTREAM_FAILED

    run(scenario)


def test_head_has_no_body(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        ask(client, "HEAD", "/upstream/m/health")
        request = await world.engine.next_request()
        request.send(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n")
        status, headers = await client.head()
        assert (status, headers["content-length"]) == (200, "12")
        ask(client, "GET", "/upstream/m/health")
        (await world.engine.next_request()).answer(b"ok")
        assert (await client.answer())[2] == b"ok"

    run(scenario)


def test_it_waits_for_its_model_with_a_lease_and_patience(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        ask(client, "GET", "/upstream/m/health")
        await world.upstreams.next_waiter()
        world.upstreams.grant()
        request = await world.engine.next_request()
        (lease,) = world.upstreams.leases
        assert lease.outcome is None
        request.answer(b"ok")
        await client.answer()
        assert lease.outcome is Outcome.SERVED
        ask(client, "GET", "/upstream/m/health")
        await world.upstreams.next_waiter()
        world.pass_time(31)
        assert await client.error() == (503, "model_loading")

    run(scenario, limits=FrontLimits(patience=30))


def test_a_websocket_goes_through(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        ask(client, "GET", "/upstream/m/queue/join?x=1", UPGRADE + "Sec-WebSocket-Key: a\r\n")
        request = await world.engine.next_request()
        assert request.line == b"GET /queue/join?x=1 HTTP/1.1"
        request.send(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi")
        assert (await client.head())[0] == 101
        assert await client.reader.readexactly(4) == b"\x81\x02hi"
        client.send(b"\x81\x02yo")
        assert await request.connection.raw(4) == b"\x81\x02yo"

    run(scenario)


@pytest.mark.parametrize(
    ("method", "target", "extra", "status", "code"),
    [
        ("GET", "/upstream/who/health", "", 404, "model_not_found"),
        ("GET", "/upstream/m", "", 307, "slash_missing"),
        ("GET", "/upstream/m/../x", "", 400, "bad_request"),
        ("GET", "/upstream/m/a/%2e%2e/sleep", "", 400, "bad_request"),
        ("GET", "/upstream/m//sleep", "", 400, "bad_request"),
        ("GET", "/upstream/m/a%5cb", "", 400, "bad_request"),
        ("POST", "/upstream/m/sleep", "", 403, "path_not_passed"),
        ("POST", "/upstream/m/%73leep/", "", 403, "path_not_passed"),
        ("POST", "/upstream/listed/other", "", 403, "path_not_passed"),
        ("POST", "/upstream/m/x", "Origin: https://evil.example\r\n", 403, "cross_origin"),
        ("POST", "/upstream/m/x", "Origin: http://localhost:9\r\n", 403, "cross_origin"),
        ("POST", "/upstream/m/x", UPGRADE, 501, "websocket_unsupported"),
        ("PUT", "/upstream/m/x", "Content-Encoding: gzip\r\nContent-Length: 2\r\n", 415, ENCODED),
    ],
)  # fmt: skip
def test_what_is_not_let_through(
    run: Run, method: str, target: str, extra: str, status: int, code: str
) -> None:
    async def scenario(world: World) -> None:
        world.serve("listed", passes=frozenset({"/health"}))
        client = await world.client()
        ask(client, method, target, extra)
        assert await client.error() == (status, code)
        assert not world.upstreams.leases

    run(scenario)


def test_a_missing_slash_is_added_for_relative_links(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        ask(client, "GET", "/upstream/m?theme=dark")
        status, headers, _ = await client.answer()
        assert (status, headers["location"]) == (307, "/upstream/m/?theme=dark")

    run(scenario)


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
def test_a_page_of_another_site_starts_nothing_by_a_picture(run: Run, site: str, status: int) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        ask(client, "GET", "/upstream/m/logo.png", f"Sec-Fetch-Site: {site}\r\n")
        if status == 200:
            (await world.engine.next_request()).answer(b"")
        assert (await client.answer())[0] == status
        assert len(world.upstreams.leases) == (status == 200)

    run(scenario)


def test_a_page_under_a_foreign_name_reads_nothing(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.send(b"GET /upstream/m/health HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert await client.error() == (403, "host_not_allowed")

    run(scenario)


def test_a_key_opens_it_and_a_session_does_not(run: Run) -> None:
    async def scenario(world: World) -> None:
        grant = Grant(Key("boss", b"", admin=True, models=frozenset({"m"})), Use(), "inner")
        world.serve("other")
        client = await world.client()
        world.holder = grant.by_cookie
        ask(client, "GET", "/upstream/m/health")
        assert await client.error() == (401, "missing_api_key")
        world.holder = grant.plain
        ask(client, "GET", "/upstream/other/health")
        assert await client.error() == (403, "model_not_allowed")
        ask(client, "GET", "/upstream/m/health")
        (await world.engine.next_request()).answer(b"ok")
        assert (await client.answer())[0] == 200
        assert (await world.record(2)).key == "boss"

    run(scenario)


def test_a_large_body_and_a_chunked_one(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        large = b"x" * 300_000
        ask(client, "POST", "/upstream/m/upload", "", large)
        request = await world.engine.next_request()
        assert request.body == large
        request.answer(b"1")
        await client.answer()
        ask(client, "POST", "/upstream/m/upload", "Transfer-Encoding: chunked\r\n")
        client.send(b"3\r\nabc\r\n0\r\n\r\n")
        request = await world.engine.next_request()
        assert (request.body, request.header("content-length")) == (b"abc", "3")
        request.answer(b"2")
        assert (await client.answer())[2] == b"2"

    run(scenario)
