"""Coroutines that wait for the fleet to be in some state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Watchers:
    """Futures with the conditions they wait for; `look` is called whenever something changed."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def until(self, settled: Callable[[], bool]) -> None:
        """Return when *settled* is true; at once when it is."""
        if settled():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((settled, future))
        await future

    def look(self) -> None:
        """Let those go whose condition is met."""
        for settled, future in list(self._waiting):
            if future.done():
                self._waiting.remove((settled, future))
            elif settled():
                self._waiting.remove((settled, future))
                future.set_result(None)
