"""Plays a scenario of ring 3 in a fresh world, on a given event loop; nothing of it may be left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from structlog.testing import capture_logs

from router.ports import FrontLimits
from tests.support.wire import Run, Scenario, World

LOOPS = ("uvloop", "asyncio")
_RAISED = frozenset({"connection_failed", "exchange_failed"})
"""What the front logs when something of its own raises where nothing may."""


def player(factory: Callable[[], asyncio.AbstractEventLoop], *, seconds: float = 10) -> Run:
    """`run(scenario)`: in *seconds*, with nothing raised inside the front, and every counter at zero."""

    def play(scenario: Scenario, *, limits: FrontLimits | None = None) -> None:
        async def whole() -> None:
            world = World(limits)
            await world.start()
            try:
                async with asyncio.timeout(seconds):
                    await scenario(world)
            finally:
                await world.close()

        with capture_logs() as logs, asyncio.Runner(loop_factory=factory) as runner:
            runner.run(whole())
        raised = [entry for entry in logs if entry["event"] in _RAISED]
        assert not raised, raised

    return play
