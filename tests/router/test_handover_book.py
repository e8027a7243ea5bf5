"""What two daemons say to each other about a lease, over a real pair of sockets."""

from __future__ import annotations

import asyncio
import math
import socket
from typing import Any, cast

from registry.engine import ModelId
from router.handover import Ask, Book, Predecessor, Successor, _Line
from router.ports import Outcome
from supervisor.tasks import TaskScope
from tests.support.wire import FakeLease


async def _between_daemons() -> FakeLease:
    ours, theirs = socket.socketpair()
    successor = Successor(cast("Any", None), await _Line.over(ours))
    predecessor = Predecessor(theirs, -1, [])
    given = FakeLease("127.0.0.1", 40000, 7)
    tasks = TaskScope()

    async def lease(ask: Ask) -> FakeLease:
        return given

    async def take_over() -> None:
        await predecessor.prepared()
        await predecessor.serve(Book(lease=lease, returned=lambda model: None), tasks.spawn)

    serving = tasks.spawn(take_over(), name="successor")
    await successor._expect("prepared", 5.0)
    await successor.take_over({})
    listening = tasks.spawn(successor.listen(), name="leaver")
    taken = await successor.lease(Ask(ModelId("a"), None, "r", 0))
    taken.keep(30.0)
    taken.keep(math.inf)
    taken.release(Outcome.SERVED)
    taken.keep(1.0)
    taken.release(Outcome.SERVED)
    successor._line.close()
    await serving
    await listening
    assert predecessor._line is not None
    predecessor._line.close()
    for line in (successor._line, predecessor._line):
        await line._writer.wait_closed()
    await tasks.close()
    return given


def test_a_lease_of_the_successors_says_there_how_long_its_instance_stays() -> None:
    given = asyncio.run(_between_daemons())
    assert given.kept == [30.0, math.inf]
    assert given.ended == [Outcome.SERVED]
