"""`run` plays a scenario in a fresh world, on uvloop and on the standard library's loop."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from router.ports import FrontLimits
from tests.support.wire import Run, Scenario, World


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def play(scenario: Scenario, *, limits: FrontLimits | None = None) -> None:
        async def whole() -> None:
            world = World(limits)
            await world.start()
            try:
                async with asyncio.timeout(10):
                    await scenario(world)
            finally:
                await world.close()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(whole())

    return play
