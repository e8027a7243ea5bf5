"""`keep_alive` on its way through the front: heard, and taken out of what the engine gets."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from router.edits import make_edits
from router.ports import Route
from tests.support.wire import Run, World

ANSWER = b'{"id":"c","model":"m"}'


def asking(**members: Any) -> bytes:
    return json.dumps({"model": "m", **members, "messages": []}, separators=(",", ":")).encode()


async def sent(world: World, body: bytes, *, model: str = "m") -> bytes:
    """What the engine gets of *body*."""
    client = await world.client()
    client.post(body)
    request = await world.engine.next_request()
    request.answer(ANSWER)
    assert (await client.answer())[0] == 200
    return request.body


@pytest.mark.parametrize(("said", "seconds"), [("5m", 300.0), (0, 0.0), (-1, math.inf)])
def test_the_instance_is_told_and_the_engine_is_not(run: Run, said: object, seconds: float) -> None:
    async def scenario(world: World) -> None:
        assert await sent(world, asking(keep_alive=said, stream=False)) == asking(stream=False)
        assert world.upstreams.leases[0].kept == [seconds]

    run(scenario)


def test_who_says_nothing_is_passed_byte_for_byte(run: Run) -> None:
    async def scenario(world: World) -> None:
        assert await sent(world, asking(stream=False)) == asking(stream=False)
        assert await sent(world, asking(keep_alive=None)) == asking()
        assert [lease.kept for lease in world.upstreams.leases] == [[], []]

    run(scenario)


def test_one_that_had_to_wait_is_heard_when_it_is_sent(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.upstreams.hold()
        client = await world.client()
        client.post(asking(keep_alive=30))
        await world.upstreams.next_waiter()
        world.upstreams.grant()
        (await world.engine.next_request()).answer(ANSWER)
        await client.answer()
        assert world.upstreams.leases[0].kept == [30.0]

    run(scenario)


def test_what_is_no_duration_is_refused_before_anything_is_leased(run: Run) -> None:
    async def scenario(world: World) -> None:
        client = await world.client()
        client.post(asking(keep_alive="soon"))
        assert await client.error() == (400, "invalid_keep_alive")
        assert world.upstreams.leases == []

    run(scenario)


def test_a_server_that_keeps_models_itself_gets_it(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.serve("m", own_keep_alive=True)
        assert await sent(world, asking(keep_alive="whatever it likes")) == asking(
            keep_alive="whatever it likes"
        )
        assert world.upstreams.leases[0].kept == []

    run(scenario)


def test_an_operator_may_take_it_out_unheard(run: Run) -> None:
    async def scenario(world: World) -> None:
        route = world.directory.routes["m"]
        assert isinstance(route, Route)
        world.directory.routes["m"] = replace(route, edits=make_edits(strip=["keep_alive"]))
        assert await sent(world, asking(keep_alive=0)) == asking()
        assert world.upstreams.leases[0].kept == []

    run(scenario)
