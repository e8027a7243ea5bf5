"""Request ids and W3C trace context: in, through, and out."""

from __future__ import annotations

import pytest

from tests.support.wire import CHAT, Run, World

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.mark.parametrize("parent", [PARENT, PARENT.replace("00-", "cc-", 1) + "-what-is-new"])
def test_a_trace_goes_through_as_it_came_and_into_the_log(run: Run, parent: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT, extra=f"traceparent: {parent}\r\ntracestate: a=b\r\nX-Request-Id: mine\r\n")
        request = await world.engine.next_request()
        assert request.header("traceparent") == parent
        assert request.header("tracestate") == "a=b"
        assert request.header("x-request-id") == "mine"
        request.answer(b"{}")
        assert (await client.answer())[1]["x-request-id"] == "mine"
        record = await world.record()
        assert (record.trace, record.request_id) == (TRACE, "mine")

    run(scenario)


@pytest.mark.parametrize(
    "parent",
    ["", "x", PARENT.upper(), PARENT + "-more", PARENT.replace("00-", "ff-", 1),
     f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{TRACE}-{'0' * 16}-01",
     f"{PARENT}\r\ntraceparent: {PARENT}"],
)  # fmt: skip
def test_what_is_no_trace_goes_no_further(run: Run, parent: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(CHAT, extra=f"traceparent: {parent}\r\ntracestate: a=b\r\n")
        request = await world.engine.next_request()
        assert not {b"traceparent", b"tracestate"} & request.headers.keys()
        request.answer(b"{}")
        await client.answer()
        assert (await world.record()).trace == ""

    run(scenario)
