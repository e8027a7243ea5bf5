"""`/v1/responses/{id}`: asked of the engine that made it, and of no other."""

from __future__ import annotations

import json

import pytest

from registry.engine import Wire
from router.kept import LOOKED_AT, Kept, KeptResponses
from router.keys import Grant, Key, Use
from router.ports import Outcome, Route
from tests.support.scripted_upstream import Received
from tests.support.wire import RawClient, Run, World

ASK = b'{"model":"m","input":"hi"}'
MADE = b'{"id":"resp_1","created_at":1,"instructions":"say \\"id\\": \\"resp_9\\"","model":"m","output":[]}'


def holder(name: str, *, admin: bool = False) -> Grant:
    return Grant(Key(name, b"", admin=admin), Use(), "inner")


async def make(world: World, client: RawClient, answer: bytes = MADE) -> None:
    client.post(ASK, path="/v1/responses")
    (await world.engine.next_request()).answer(answer)
    assert (await client.answer())[0] == 200


def send(client: RawClient, method: str, target: str, extra: str = "") -> None:
    client.send(f"{method} {target} HTTP/1.1\r\nHost: a\r\n{extra}\r\n".encode())


async def asked(world: World, client: RawClient, method: str, target: str) -> Received:
    send(client, method, target)
    return await world.engine.next_request()


@pytest.mark.parametrize(
    ("method", "target", "line"),
    [
        ("GET", "/v1/responses/resp_1?stream=true&starting_after=3",
         b"GET /v1/responses/resp_1?stream=true&starting_after=3 HTTP/1.1"),
        ("DELETE", "/responses/resp_1", b"DELETE /v1/responses/resp_1 HTTP/1.1"),
        ("POST", "/v1/responses/resp_1/cancel", b"POST /v1/responses/resp_1/cancel HTTP/1.1"),
        ("GET", "/v1/responses/resp_1/input_items", b"GET /v1/responses/resp_1/input_items HTTP/1.1"),
    ],
)  # fmt: skip
def test_it_is_asked_of_who_made_it(run: Run, method: str, target: str, line: bytes) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.key = "engine-key"
        client = await world.client()
        await make(world, client)
        request = await asked(world, client, method, target)
        assert (request.line, request.header("authorization")) == (line, "Bearer engine-key")
        request.answer(MADE)
        assert (await client.answer())[2] == MADE
        record = await world.record(1)
        assert (record.model, record.outcome) == ("m", "served")
        assert [lease.outcome for lease in world.upstreams.leases] == [Outcome.SERVED] * 2

    run(scenario)


def test_a_streams_first_event_is_enough_and_its_answer_goes_on(run: Run) -> None:
    async def scenario(world: World) -> None:
        streaming, other = await world.client(), await world.client()
        streaming.post(b'{"model":"m","input":"hi","stream":true}', path="/v1/responses")
        request = await world.engine.next_request()
        request.begin_events()
        created = {"type": "response.created", "response": {"id": "resp_s-1", "object": "response"}}
        event = b"event: response.created\ndata: " + json.dumps(created).encode() + b"\n\n"
        request.chunk(event)
        assert (await streaming.head())[0] == 200
        assert await streaming.chunk() == event
        (await asked(world, other, "POST", "/v1/responses/resp_s-1/cancel")).answer(b"{}")
        assert (await other.answer())[0] == 200
        request.chunk(b"event: response.completed\ndata: {}\n\n")
        request.send(b"0\r\n\r\n")
        assert await streaming.chunks() == b"event: response.completed\ndata: {}\n\n"

    run(scenario)


def test_the_name_that_was_asked_for_is_in_the_answer(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("alias", model="m")
        client = await world.client()
        client.post(ASK.replace(b'"m"', b'"alias"'), path="/v1/responses")
        request = await world.engine.next_request()
        request.answer(MADE)
        assert json.loads((await client.answer())[2])["model"] == "alias"
        (await asked(world, client, "GET", "/v1/responses/resp_1")).answer(MADE)
        assert json.loads((await client.answer())[2])["model"] == "alias"

    run(scenario)


def test_an_engine_that_does_not_keep_says_so_in_the_envelope(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        await make(world, client)
        request = await asked(world, client, "DELETE", "/v1/responses/resp_1")
        request.answer(b'{"detail":"Method Not Allowed"}', status="405 Method Not Allowed")
        assert await client.error() == (405, "engine_error")

    run(scenario)


@pytest.mark.parametrize(
    "made",
    [b'{"object":"response"}', b'{"id":"chatcmpl-1"}', b'{"x":"' + b"a" * LOOKED_AT + b'",' + MADE[1:]],
)
def test_what_nobody_is_known_to_have_is_not_found(run: Run, made: bytes) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        await make(world, client, made)
        send(client, "GET", "/v1/responses/resp_1")
        assert await client.error() == (404, "response_not_found")
        assert len(world.upstreams.leases) == 1

    run(scenario)


def test_an_engine_that_has_ended_is_not_started_again(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        await make(world, client)
        world.upstreams.generation += 1
        send(client, "GET", "/v1/responses/resp_1")
        assert await client.error() == (404, "response_gone")
        assert len(world.upstreams.leases) == 1

    run(scenario)


def test_an_engine_that_ends_while_it_is_asked_is_not_asked_again(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        await make(world, client)
        (await asked(world, client, "GET", "/v1/responses/resp_1")).abort()
        # The kept connection may only have been kept for too long: a fresh one is tried.
        (await world.engine.next_request()).abort()
        assert await client.error() == (404, "response_gone")
        assert len(world.upstreams.leases) == 2

    run(scenario)


def test_a_port_that_nobody_listens_at_any_more_is_gone(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        await make(world, client)
        world.engine.stop_listening()
        for connection in world.engine.connections:
            connection.transport.abort()
        await world.turn()
        send(client, "GET", "/v1/responses/resp_1")
        assert await client.error() == (404, "response_gone")

    run(scenario)


def test_another_keys_response_is_as_unknown_as_none(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        world.holder = holder("mine").counted
        await make(world, client)
        world.holder = holder("other").plain
        send(client, "GET", "/v1/responses/resp_1")
        theirs = (await client.answer())[2]
        send(client, "GET", "/v1/responses/resp_2")
        none = (await client.answer())[2]
        assert theirs.replace(b"resp_1", b"resp_2") == none
        world.holder = holder("mine").by_cookie
        send(client, "GET", "/v1/responses/resp_1")
        assert await client.error() == (401, "missing_api_key")
        for known in (holder("mine").plain, holder("boss", admin=True).plain):
            world.holder = known
            (await asked(world, client, "GET", "/v1/responses/resp_1")).answer(MADE)
            assert (await client.answer())[0] == 200

    run(scenario)


@pytest.mark.parametrize("key", [b"previous_response_id", b"previous\\u005fresponse_id"])
@pytest.mark.parametrize("size", [0, 100_000])
def test_another_keys_response_cannot_be_gone_on_from(run: Run, key: bytes, size: int) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        world.holder = holder("mine").counted
        await make(world, client)
        on = b'{"model":"m","input":"%b","%b":"resp_1"}' % (b"x" * size, key)
        client.post(on, path="/v1/responses")
        (await world.engine.next_request()).answer(MADE.replace(b"resp_1", b"resp_2"))
        assert (await client.answer())[0] == 200
        world.holder = holder("other").counted
        client.post(on, path="/responses")
        assert await client.error() == (404, "response_not_found")
        # Of one that nobody is known to have the engine decides.
        client.post(on.replace(b"resp_1", b"resp_8"), path="/v1/responses")
        (await world.engine.next_request()).answer(b'{"detail":"no"}', status="404 Not Found")
        assert await client.error() == (404, "engine_error")
        client.post(b"[1]", path="/v1/responses")
        assert await client.error() == (400, "invalid_json")

    run(scenario)


def test_an_id_that_is_another_keys_cannot_be_taken(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        world.holder = holder("mine").counted
        await make(world, client)
        world.holder = holder("other").counted
        await make(world, client)
        send(client, "GET", "/v1/responses/resp_1")
        assert await client.error() == (404, "response_not_found")

    run(scenario)


@pytest.mark.parametrize(
    ("method", "target"),
    [("PUT", "/v1/responses/resp_1"), ("GET", "/v1/responses/resp_1/cancel"), ("GET", "/v1/responses/a/b/c")],
)
def test_other_methods_and_paths_are_the_control_apps(run: Run, method: str, target: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        send(client, method, target)
        _, writer, _ = await world.control.next_request()
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        assert (await client.answer())[0] == 404
        writer.close()

    run(scenario)


def test_those_not_asked_for_longest_are_forgotten() -> None:
    memory = KeptResponses(most=2)
    kept = Kept(Route("m", object(), Wire("m")), 1, "m", "")
    memory.note("a", kept)
    memory.note("b", kept)
    assert memory.find("a", None) is kept
    memory.note("c", kept)
    assert (memory.find("a", None), memory.find("b", None), len(memory)) == (kept, None, 2)
