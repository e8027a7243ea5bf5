"""Engines' error shapes in the caller's envelope; names told to engines and shown to clients."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.ports import Refusal
from tests.support.wire import CHAT, STREAM, Run, World

SHAPES = {
    "FastAPI": (b'{"detail":"Not Found"}', "Not Found"),
    "FastAPI validation": (
        b'{"detail":[{"loc":["body","messages"],"msg":"field required"}]}',
        "body.messages: field required",
    ),
    "mlx_lm.server": (b'{"error":"Request did not contain messages"}', "Request did not contain messages"),
    "old vLLM": (b'{"object":"error","message":"too long","type":"BadRequestError","code":400}', "too long"),
    "plain text": (b"Not Found", "Not Found"),
    "nothing": (b"", "the engine answered 404 without a word"),
    "text as JSON": (b'"broken"', "broken"),
    "no UTF-8": (b"\xff\xfe", "��"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_engines_error_is_brought_into_openais_envelope(run: Run, shape: str) -> None:
    body, message = SHAPES[shape]

    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        (await world.engine.next_request()).answer(body, status="404 Not Found", content_type="text/plain")
        status, headers, got = await client.answer()
        assert status == 404
        assert headers["content-type"] == "application/json"
        error = json.loads(got)["error"]
        assert error["message"] == message
        assert set(error) == {"message", "type", "param", "code"}
        assert (await world.record()).outcome == "served"  # the engine's own answer

    run(scenario)


def test_an_envelope_passes_byte_for_byte_with_its_fields(run: Run) -> None:
    body = b'{"error": {"message": "no", "type": "NotFoundError", "param": "model", "code": 404}}'

    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        head = b"HTTP/1.1 429 Too Many\r\ncontent-type: application/json\r\nretry-after: 7\r\n"
        head += b"transfer-encoding: chunked\r\n\r\n"
        (await world.engine.next_request()).send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        status, headers, got = await client.answer()
        assert (status, headers["retry-after"], got) == (429, "7", body)

    run(scenario)


def test_a_close_delimited_error_keeps_its_status(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.send(b'HTTP/1.0 404 Not Found\r\nContent-type: application/json\r\n\r\n{"error": "no model"}')
        request.end()
        status, _, got = await client.answer()
        assert (status, json.loads(got)["error"]["message"]) == (404, "no model")

    run(scenario)


def test_an_error_cut_short_keeps_its_status(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        request = await world.engine.next_request()
        request.send(b'HTTP/1.1 500 Oops\r\ncontent-length: 100\r\n\r\n{"detail": "out of mem')
        request.end()
        status, _, got = await client.answer()
        assert (status, json.loads(got)["error"]["message"]) == (500, '{"detail": "out of mem')

    run(scenario)


def test_anthropic_callers_get_their_own_envelope(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT, path="/v1/messages")
        (await world.engine.next_request()).answer(b'{"detail":"too long"}', status="400 Bad Request")
        _, _, got = await client.answer()
        assert json.loads(got) == {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": "too long", "code": "engine_error"},
        }
        client.post(b'{"model":"nope"}', path="/v1/messages")
        status, _, got = await client.answer()
        assert status == 404
        assert json.loads(got)["error"]["type"] == "not_found_error"

    run(scenario)


def test_a_large_error_body_passes_unread(run: Run) -> None:
    body = b"x" * 100_000

    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        (await world.engine.next_request()).answer(body, status="500 Oops", content_type="text/plain")
        status, _, got = await client.answer()
        assert (status, got) == (500, body)

    run(scenario)


def test_a_refusal_carries_its_fields(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.objection = Refusal(
            429, "rate_limited", "slow down", "rate_limit_error", "model", 0.2, (("x-should-retry", "true"),)
        )
        client = await world.client()
        client.post(CHAT)
        status, headers, body = await client.answer()
        assert (status, headers["retry-after"], headers["x-should-retry"]) == (429, "1", "true")
        assert json.loads(body)["error"] == {
            "message": "slow down", "type": "rate_limit_error", "param": "model", "code": "rate_limited",
        }  # fmt: skip

    run(scenario)


async def told(world: World, body: bytes, **wire: Any) -> bytes:
    """The body an engine gets for *body*."""
    client = await world.client()
    client.post(body)
    request = await world.engine.next_request()
    request.answer(b"{}")
    await client.answer()
    return request.body


def test_an_engine_is_told_the_name_it_knows(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("alias", model="org/model", served_name="default_model")
        assert await told(world, b'{ "model" : "alias", "n":1}') == b'{ "model" : "default_model", "n":1}'
        world.serve("org/model", served_name="default_model", accepted_names=frozenset({"org/model"}))
        body = b'{"n":1,"model":"org/model"}'
        assert await told(world, body) == body

    run(scenario)


def test_a_request_without_a_model_gets_the_default_ones_name(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve(None, model="org/model")
        assert await told(world, b'{"n":1}') == b'{"model":"org/model","n":1}'
        assert await told(world, b"{}") == b'{"model":"org/model"}'
        assert world.directory.asked[0] == (None, "/v1/chat/completions")

    run(scenario)


def test_fields_an_engine_must_not_see_are_taken_out(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", strip_fields=("adapters", "draft_model"))
        assert await told(world, b'{"model":"m","adapters":"/etc/x","n":1}') == b'{"model":"m","n":1}'
        assert await told(world, b'{"model":"m","n":1,"adapt\\u0065rs":[1,{}]}') == b'{"model":"m","n":1}'

    run(scenario)


def test_the_client_sees_the_name_it_asked_for_in_a_counted_answer(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("alias", model="org/model", served_name="/models/blob")
        client = await world.client()
        client.post(b'{"model":"alias"}')
        request = await world.engine.next_request()
        answer = b'{"id":"1","model": "/models/blob","choices":["' + b"x" * 200_000 + b'"]}'
        request.answer(answer)
        _, headers, body = await client.answer()
        assert json.loads(body)["model"] == "alias"
        assert int(headers["content-length"]) == len(body)

    run(scenario)


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_the_client_sees_the_name_it_asked_for_in_every_event(run: Run, framing: str) -> None:
    async def scenario(world: World) -> None:
        world.serve("alias", served_name="default_model")
        client = await world.client()
        client.post(b'{"model":"alias","stream":true}')
        request = await world.engine.next_request()
        event = b'data: {"model": "default_model", "choices": [{"text": "\\"model\\": \\"x\\""}]}\n\n'
        request.begin_events(framing=framing)
        raw = event * 3 + b"data: [DONE]\n\n"
        step = 7
        for i in range(0, len(raw), step):
            piece = raw[i : i + step]
            if framing == "chunked":
                request.chunk(piece)
            else:
                request.send(piece)
            await world.turn()
        if framing == "chunked":
            request.send(b"0\r\n\r\n")
        else:
            request.end()
        await client.head()
        assert await client.chunks() == raw.replace(b'"model": "default_model"', b'"model":"alias"')

    run(scenario)


def test_a_name_the_engine_itself_answers_with_passes_untouched(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT)
        body = b'{"model": "m",  "odd":   "spacing"}'
        (await world.engine.next_request()).answer(body)
        assert (await client.answer())[2] == body

    run(scenario)


def multipart(*fields: tuple[str, bytes]) -> bytes:
    parts = [
        f'--XX\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + value + b"\r\n"
        for name, value in fields
        for extra in ('; filename="a.wav"' if name == "file" else "",)
    ]
    return b"".join(parts) + b"--XX--\r\n"


def test_the_model_is_found_after_20_megabytes_of_audio_and_told_in_place(run: Run) -> None:
    audio = bytes(range(256)) * 80_000 + b"\r\n--XY\r\n"

    async def scenario(world: World) -> None:
        world.serve("alias", served_name="whisper")
        client = await world.client()
        body = multipart(("file", audio), ("model", b"alias"), ("language", b"en"))
        head = (
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\n"
            b"Content-Type: multipart/form-data; boundary=XX\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        client.send(head + body)
        request = await world.engine.next_request()
        assert request.body == multipart(("file", audio), ("model", b"whisper"), ("language", b"en"))
        assert request.header("content-type") == "multipart/form-data; boundary=XX"
        request.answer(b'{"text":"hi"}')
        assert (await client.answer())[0] == 200

    run(scenario)
