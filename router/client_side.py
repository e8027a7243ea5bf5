"""What an exchange needs of the connection its request came on."""

from __future__ import annotations

from typing import Protocol


class ClientSide(Protocol):
    """The connection a request came on."""

    deadline: float
    client: str
    closing: bool

    def write(self, data: bytes) -> None:
        """Send to the client."""
        ...

    def answered(self, *, keep: bool) -> None:
        """The answer is complete; *keep* the connection for another request."""
        ...

    def cut(self, *, reset: bool = False) -> None:
        """Close hard: what was sent must not look complete."""
        ...
