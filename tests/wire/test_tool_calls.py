"""Tool calls found in the text of an answer, through the whole front."""

from __future__ import annotations

import json

import pytest

from tests.support.wire import Run, World

TOOLS = (
    b'"tools":[{"type":"function","function":{"name":"now","parameters":{"type":"object","properties":{}}}}]'
)
ASK = b'{"model":"m",%b,"messages":[]}' % TOOLS
STREAM = b'{"model":"m","stream":true,%b,"messages":[]}' % TOOLS
TEXT = 'Wait.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def answer(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    return json.dumps(
        {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    ).encode()


def events(text: str) -> list[bytes]:
    parts = [*(text[at : at + 4] for at in range(0, len(text), 4)), None]
    found = []
    for part in parts:
        delta, reason = ({}, "stop") if part is None else ({"content": part}, None)
        chunk = {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        found.append(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    return [*found, b"data: [DONE]\n\n"]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_document_of_any_framing_is_changed_as_a_whole(run: Run, framing: str) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", calls="tags")
        client = await world.client()
        client.post(ASK)
        request = await world.engine.next_request()
        body = answer(TEXT)
        if framing == "length":
            request.answer(body)
        elif framing == "chunked":
            request.send(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            for part in (body[:30], body[30:]):
                request.send(b"%x\r\n%b\r\n" % (len(part), part))
                await world.turn()
            request.send(b"0\r\n\r\n")
        else:
            request.send(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + body)
            request.end()
        status, headers, got = await client.answer()
        assert (status, int(headers["content-length"])) == (200, len(got))
        choice = json.loads(got)["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("Wait.", "tool_calls")
        assert choice["message"]["tool_calls"][0]["function"] == {"name": "now", "arguments": "{}"}

    run(scenario)


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_stream_flows_until_the_call(run: Run, framing: str) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", calls="tags")
        client = await world.client()
        client.post(STREAM)
        request = await world.engine.next_request()
        request.begin_events(framing=framing)
        send = request.chunk if framing == "chunked" else request.send
        first, *rest = events(TEXT)
        send(first)
        await client.head()
        assert await client.chunk() == first  # it does not wait for the rest
        for one in rest:
            send(one)
            await world.turn()
        if framing == "chunked":
            request.send(b"0\r\n\r\n")
        else:
            request.end()
        got = await client.chunks()
        assert b"<tool" not in got
        assert b'"name":"now"' in got
        assert b'"finish_reason":"tool_calls"' in got
        assert got.endswith(b"data: [DONE]\n\n")

    run(scenario)


def test_an_error_of_the_engine_is_still_one(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", calls="tags")
        client = await world.client()
        client.post(ASK)
        (await world.engine.next_request()).answer(b'{"detail":"no"}', status="400 Bad Request")
        assert await client.error() == (400, "engine_error")

    run(scenario)


def test_a_document_that_was_cut_is_not_passed_as_whole(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", calls="tags")
        client = await world.client()
        client.post(ASK)
        request = await world.engine.next_request()
        request.send(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + answer(TEXT)[:-5])
        request.end()
        assert await client.error() == (502, "answer_cut")

    run(scenario)


def test_a_document_too_long_to_look_into_passes_as_it_is(run: Run) -> None:
    body = answer(TEXT + "x" * (5 * 2**20))

    async def scenario(world: World) -> None:
        world.serve("m", calls="tags")
        client = await world.client()
        client.post(ASK)
        (await world.engine.next_request()).answer(body)
        assert (await client.answer())[2] == body

    run(scenario)


def test_without_tools_in_the_request_nothing_is_looked_for(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", calls="tags")
        client = await world.client()
        client.post(b'{"model":"m","messages":[]}')
        (await world.engine.next_request()).answer(answer(TEXT))
        assert (await client.answer())[2] == answer(TEXT)

    run(scenario)


def test_channels_are_taken_apart_without_tools_too(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", calls="harmony")
        client = await world.client()
        client.post(b'{"model":"m","messages":[]}')
        (await world.engine.next_request()).answer(answer("<|channel|>final<|message|>Hello."))
        assert json.loads((await client.answer())[2])["choices"][0]["message"]["content"] == "Hello."

    run(scenario)


def test_a_server_that_refuses_tools_is_not_shown_them(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", calls="tags", hides_tools=True)
        client = await world.client()
        client.post(b'{"model":"m",%b,"tool_choice":"auto","n":1}' % TOOLS)
        request = await world.engine.next_request()
        assert request.body == b'{"model":"m","n":1}'
        request.answer(answer(TEXT))
        assert b'"tool_calls":[' in (await client.answer())[2]

    run(scenario)
