"""The connection a request came on, as its exchange sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from router.ports import Bytes


class ClientSide(Protocol):
    """Where the answer goes."""

    deadline: float
    client: str
    closing: bool

    @property
    def write(self) -> Callable[[Bytes], None]:
        """Sends to the client."""
        ...

    def answered(self, *, keep: bool, now: float) -> None:
        """The answer is complete; *keep* the connection for another request."""
        ...

    def cut(self, *, reset: bool = False) -> None:
        """Close hard: what was sent must not look complete."""
        ...

    def opened(self) -> bytes:
        """The connection is a tunnel from here on; returns what the client has sent ahead."""
        ...

    def hold(self, *, back: bool) -> None:
        """Read no more from the client, or go on."""
        ...
