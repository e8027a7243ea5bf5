"""A large body on its way in: read straight into its place, without a copy."""

from __future__ import annotations

import asyncio
from typing import Protocol


class BodyTaker(Protocol):
    """The connection the body comes on."""

    def body_grew(self) -> None:
        """More of it has come."""
        ...

    def body_complete(self) -> None:
        """All of it has."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """As of `asyncio.Protocol`."""
        ...

    def pause_writing(self) -> None:
        """As of `asyncio.Protocol`."""
        ...

    def resume_writing(self) -> None:
        """As of `asyncio.Protocol`."""
        ...


class BodyReader(asyncio.BufferedProtocol):
    """The transport's protocol in its connection's place, until the body is whole or nobody wants it."""

    __slots__ = ("_have", "_taker", "_view")

    def __init__(self, taker: BodyTaker, view: memoryview, have: int) -> None:
        """*view* is the body's place, of which *have* bytes are filled."""
        self._taker = taker
        self._view = view
        self._have = have

    @property
    def body(self) -> memoryview:
        """Where it lies."""
        return self._view

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._have :]

    def buffer_updated(self, nbytes: int) -> None:
        self._have += nbytes
        if self._have < len(self._view):
            self._taker.body_grew()
        else:
            self._taker.body_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._taker.connection_lost(exc)

    def pause_writing(self) -> None:
        self._taker.pause_writing()

    def resume_writing(self) -> None:
        self._taker.resume_writing()
