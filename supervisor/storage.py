"""Whether trees can be started as far as the disk goes: each needs a folder, a socket and a log."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from supervisor.ports import Clock, Timer
from supervisor.tasks import Spawn

log = structlog.get_logger("modelyard.storage")

LOOK_EVERY = 5.0
"""Seconds between two tries: as often as a load balancer asks."""
PROBE_BYTES = 4096
"""A block: a full disk still makes empty files."""


def trouble_of(folders: Sequence[Path]) -> str:
    """Why one of *folders* cannot be written, and what to do; "" when all can. Blocks."""
    for folder in folders:
        try:
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as probe:
                probe.write(bytes(PROBE_BYTES))
        except OSError as error:
            said = error.strerror or str(error)
            return f"{folder} cannot be written ({said}): make room, or mend its permissions"
    return ""


class StorageWatch:
    """Tries it out now and then, in a thread; `trouble` is what the last try met."""

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        clock: Clock,
        spawn: Spawn,
        look: Callable[[Sequence[Path]], str] = trouble_of,
    ) -> None:
        self.trouble = ""
        self._folders = tuple(folders)
        self._clock = clock
        self._spawn = spawn
        self._look = look
        self._timer: Timer | None = None

    def start(self) -> None:
        """Look from now on, until `close`."""
        self._timer = self._clock.call_later(LOOK_EVERY, self._due)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._spawn(self._try(), name="storage")

    async def _try(self) -> None:
        found = await asyncio.to_thread(self._look, self._folders)
        if found and not self.trouble:
            log.error("storage_unwritable", reason=found)
        elif self.trouble and not found:
            log.info("storage_writable")
        self.trouble = found
        if self._timer is not None:
            self.start()
