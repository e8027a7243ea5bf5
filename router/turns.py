"""One caller per round of the event loop, for work that many want at the same moment."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Hands out turns, first come first served: the rounds between are everybody else's.

    Fifty requests to the control app that come together, or fifty answers of a megabyte that are ready
    together, would be one round, and a token would wait for all of them.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_giving = False

    async def mine(self) -> None:
        """Return when it is the caller's turn. A caller that is cancelled gives its turn to the next."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if not self._is_giving:
            self._is_giving = True
            loop.call_soon(self._give, loop)
        await turn

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                loop.call_soon(self._give, loop)
                return
        self._is_giving = False
