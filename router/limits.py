"""What the front may hold at once: request bodies, in all and per model, and the buffers they are read
into."""

from __future__ import annotations

REUSED_BUFFERS = 8
"""Buffers kept for the next large body: as many large uploads as one core moves at once."""
REUSED_BYTES = 32 * 2**20
"""Their bytes in all: what we cost at rest after a burst of images."""
_STEP = 256 * 1024
"""Sizes are rounded up to this, so that bodies of nearly one size share buffers."""


class BodyBudget:
    """Counts the bytes of request bodies that are being received or that wait.

    Two bounds: all together, and per model, so that one cold model's waiters never refuse everybody else. A
    small body that arrived in one piece and goes out at once is never counted: it is on its way before
    anybody could be refused for it.
    """

    __slots__ = ("_held_by_model", "_per_model", "_total", "held")

    def __init__(self, *, total: int, per_model: int) -> None:
        self._total = total
        self._per_model = per_model
        self._held_by_model: dict[str, int] = {}
        self.held = 0
        """Bytes in all."""

    def take(self, size: int) -> bool:
        """Count *size* bytes of a body whose model is not known yet; False if there is no room."""
        if self.held + size > self._total:
            return False
        self.held += size
        return True

    def give(self, size: int) -> None:
        """Return what `take` counted."""
        self.held -= size

    def take_model(self, model: str, size: int) -> bool:
        """Count *size* bytes against *model*'s share; False if there is no room."""
        held = self._held_by_model.get(model, 0) + size
        if held > self._per_model:
            return False
        self._held_by_model[model] = held
        return True

    def give_model(self, model: str, size: int) -> None:
        """Return what `take_model` counted."""
        held = self._held_by_model[model] - size
        if held:
            self._held_by_model[model] = held
        else:
            del self._held_by_model[model]

    def held_by(self, model: str) -> int:
        """Bytes counted against *model*."""
        return self._held_by_model.get(model, 0)


class BufferStore:
    """Buffers for large bodies, kept for the next one: fresh megabytes cost page faults, four times the
    reading."""

    __slots__ = ("_free", "kept_bytes")

    def __init__(self) -> None:
        self._free: list[bytearray] = []
        self.kept_bytes = 0

    def take(self, size: int) -> bytearray:
        """A buffer of at least *size* bytes; its content is undefined."""
        for i, buffer in enumerate(self._free):
            if size <= len(buffer) <= 4 * size:
                del self._free[i]
                self.kept_bytes -= len(buffer)
                return buffer
        return bytearray(-(-size // _STEP) * _STEP if size > _STEP // 4 else size)

    def give(self, buffer: bytearray) -> None:
        """Return a buffer nobody reads or writes any more."""
        size = len(buffer)
        if size >= _STEP and len(self._free) < REUSED_BUFFERS and self.kept_bytes + size <= REUSED_BYTES:
            self._free.append(buffer)
            self.kept_bytes += size
