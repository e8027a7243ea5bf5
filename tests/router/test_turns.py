"""One caller per round of the loop."""

from __future__ import annotations

import asyncio

from router.turns import Turns


def test_each_round_is_one_callers_in_order() -> None:
    async def scenario() -> list[tuple[int, int]]:
        turns, rounds, seen = Turns(), 0, []
        loop = asyncio.get_running_loop()

        def count() -> None:
            nonlocal rounds
            rounds += 1
            loop.call_soon(count)

        async def caller(number: int) -> None:
            await turns.mine()
            seen.append((number, rounds))

        loop.call_soon(count)
        await asyncio.gather(*(caller(n) for n in range(5)))
        await caller(5)  # nobody else waits
        return seen

    seen = asyncio.run(scenario())
    assert [number for number, _ in seen] == [0, 1, 2, 3, 4, 5]
    assert len({at for _, at in seen}) == 6


def test_a_caller_that_leaves_holds_nobody_up() -> None:
    async def scenario() -> None:
        turns = Turns()
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5), asyncio.TaskGroup() as callers:
            tasks = [callers.create_task(turns.mine()) for _ in range(4)]
            # Before the first turn is given, which takes two rounds.
            loop.call_soon(tasks[0].cancel)
            loop.call_soon(tasks[2].cancel)
        assert [task.cancelled() for task in tasks] == [True, False, True, False]
        await turns.mine()

    asyncio.run(scenario())
