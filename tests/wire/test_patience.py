"""Clients that do not stream, while a model loads: told to come again in time, or kept by white space."""

from __future__ import annotations

import json

import pytest

from router.ports import FrontLimits
from tests.support.wire import CHAT, STREAM, Run, World

ANSWER = b'{"id":"c","model":"m"}'
SPACE = FrontLimits(loading_space=True)


@pytest.mark.parametrize(
    ("field", "seconds"),
    [("x-stainless-read-timeout: 5", 4.0), ("x-stainless-read-timeout: 5.0", 4.0),
     ("x-stainless-timeout: 100", 95.0), ("X-Other: 1", 50.0)],
)  # fmt: skip
def test_a_client_is_told_to_come_again_before_it_tires(run: Run, field: str, seconds: float) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        world.upstreams.eta = 12.3
        client = await world.client()
        client.post(CHAT, extra=f"{field}\r\n")
        await world.upstreams.next_waiter()
        world.pass_time(seconds - 0.1)
        assert world.front.counters.waiting == 1
        world.pass_time(0.2)
        status, headers, body = await client.answer()
        error = json.loads(body)["error"]
        assert (status, error["code"], headers["retry-after"]) == (503, "model_loading", "13")
        assert "42%" in error["message"]
        assert world.upstreams.cancelled == 1
        world.upstreams.ready = True
        client.post(CHAT)  # on the same connection
        (await world.engine.next_request()).answer(ANSWER)
        assert (await client.answer())[0] == 200

    run(scenario, limits=FrontLimits(patience=50))


@pytest.mark.parametrize("said", ["", "soon", "nan", "-5", "0.01", "inf"])
def test_a_client_that_says_nothing_sensible_waits_as_long_as_it_takes(run: Run, said: str) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(CHAT, extra=f"x-stainless-read-timeout: {said}\r\n" if said else "")
        await world.upstreams.next_waiter()
        world.pass_time(550)
        world.upstreams.grant()
        (await world.engine.next_request()).answer(ANSWER)
        assert (await client.answer())[2] == ANSWER

    run(scenario)


def test_a_stream_is_kept_alive_whatever_its_client_says(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(STREAM, extra="x-stainless-read-timeout: 5\r\n")
        await world.upstreams.next_waiter()
        for _ in range(30):
            world.pass_time(1.1)
        world.upstreams.grant()
        request = await world.engine.next_request()
        request.begin_events()
        request.chunk(b"data: [DONE]\n\n")
        request.send(b"0\r\n\r\n")
        assert (await client.answer())[2].count(b": loading m 42%") == 30

    run(scenario)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_white_space_keeps_a_client_until_its_document_comes(run: Run, framing: str, version: str) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(CHAT, version=version)
        await world.upstreams.next_waiter()
        world.pass_time(1.1)
        world.pass_time(1.1)
        world.upstreams.grant()
        request = await world.engine.next_request()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        if framing == "chunked":
            request.send(head + b"transfer-encoding: chunked\r\n\r\n")
            request.chunk(ANSWER)
            request.send(b"0\r\n\r\n")
        elif framing == "length":
            request.answer(ANSWER)
        else:
            request.send(head + b"\r\n" + ANSWER)
            request.end()
        status, headers, body = await client.answer()
        assert (status, headers["content-type"]) == (200, "application/json")
        assert body == b"  " + ANSWER
        assert json.loads(body)["id"] == "c"
        assert (await world.record()).outcome == "served"

    run(scenario, limits=SPACE)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_document_that_is_cut_after_white_space_is_never_whole(run: Run, framing: str) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(CHAT)
        await world.upstreams.next_waiter()
        world.pass_time(1.1)
        world.upstreams.grant()
        request = await world.engine.next_request()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        fields = {
            "length": b"content-length: 22\r\n",
            "chunked": b"transfer-encoding: chunked\r\n",
            "close": b"",
        }
        half = ANSWER[:9]
        request.send(head + fields[framing] + b"\r\n" + (b"16\r\n" if framing == "chunked" else b"") + half)
        request.end()
        await client.head()
        raw = await client.closed() if framing != "close" else await client.chunks()
        if framing == "close":
            assert json.loads(raw)["error"]["code"] == "answer_cut"
        else:
            assert not raw.endswith(b"0\r\n\r\n")
        assert (await world.record()).outcome == "upstream_failed"

    run(scenario, limits=SPACE)


def test_a_failure_after_white_space_is_an_error_in_the_body(run: Run) -> None:
    async def scenario(world: World) -> None:
        for by_engine in (False, True):
            world.upstreams.hold()
            client = await world.client()
            client.post(CHAT)
            await world.upstreams.next_waiter()
            world.pass_time(1.1)
            if by_engine:
                world.upstreams.grant()
                request = await world.engine.next_request()
                request.answer(b'{"detail":"too long"}', status="400 Bad Request")
            else:
                world.upstreams.refuse(RuntimeError("broken"))
            status, _, body = await client.answer()
            error = json.loads(body)["error"]
            assert status == 200
            assert error["message"] == "too long" if by_engine else error["code"] == "internal_error"

    run(scenario, limits=SPACE)


def test_sound_is_no_document(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(b'{"model":"m","input":"hi"}', path="/v1/audio/speech")
        await world.upstreams.next_waiter()
        world.pass_time(1.1)
        world.upstreams.grant()
        (await world.engine.next_request()).answer(b"RIFF", content_type="audio/wav")
        assert (await client.answer())[2] == b"RIFF"

    run(scenario, limits=SPACE)


def test_progress_may_be_told_as_reasoning(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(STREAM)
        await world.upstreams.next_waiter()
        world.pass_time(1.1)
        await client.head()
        event = await client.chunk()
        delta = json.loads(event.removeprefix(b"data: "))["choices"][0]["delta"]
        assert delta == {"reasoning_content": "loading m 42% eta 12s\n"}
        world.pass_time(1.1)
        assert (await client.chunk()).startswith(b": loading")  # nothing new to show
        client.abort()

    run(scenario, limits=FrontLimits(loading_reasoning=True))
