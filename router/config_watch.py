"""Looks at the configuration file once a second, in a thread, and says when other words stand in it.

Only a file that has been the same for two looks counts: an editor that is still writing is not disturbed, and
what is written twice within a second is told once. It is the content that counts, not the time of a file that
was merely touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from config.load import Loaded
from router.shared import Spawn
from supervisor.ports import Clock, Timer

EVERY: Final = 1.0
"""Seconds between two looks."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A file at one look."""

    stamp: tuple[int, int, int]
    """Inode, size and time of the last change: while these are the same it is not read again."""
    digest: bytes


@dataclass(frozen=True, slots=True)
class Judgement:
    """What two looks say. Pure."""

    told: bytes
    """What was loaded at first, and told last since."""
    pending: bytes | None = None
    """Seen once."""

    def after(self, digest: bytes | None) -> tuple[Judgement, bool]:
        """The next judgement, and whether to tell. None: there is no file to read."""
        if digest is None or digest == self.told:
            return Judgement(self.told), False
        if digest != self.pending:
            return Judgement(self.told, digest), False
        return Judgement(digest), True


class ConfigWatch:
    """Tells *changed*. *watched* is asked for at each look: what was loaded, or None while nothing is to be
    watched."""

    def __init__(
        self,
        watched: Callable[[], Loaded | None],
        *,
        clock: Clock,
        spawn: Spawn,
        changed: Callable[[], None],
    ) -> None:
        self._watched = watched
        self._clock = clock
        self._spawn = spawn
        self._changed = changed
        self._judgement: Judgement | None = None
        self._seen: Seen | None = None
        self._timer: Timer | None = None
        self._looking = False

    def start(self) -> None:
        """Look from now on, until `close`."""
        self._look_soon()
        self._timer = self._clock.call_later(EVERY, self.start)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_soon(self) -> None:
        loaded = self._watched()
        if loaded is None or loaded.path is None:
            self._judgement = self._seen = None
        elif not self._looking:  # a slow disk gets no second question before it has answered the first
            self._looking = True
            judgement = self._judgement or Judgement(loaded.digest)
            self._spawn(self._look(loaded.path, judgement), name="look at the configuration")

    async def _look(self, path: Path, judgement: Judgement) -> None:
        try:
            self._seen = await asyncio.to_thread(look, path, self._seen)
        finally:
            self._looking = False
        digest = None if self._seen is None else self._seen.digest
        self._judgement, tell = judgement.after(digest)
        if tell:
            self._changed()


def look(path: Path, before: Seen | None) -> Seen | None:
    """*path* now; None when it cannot be read. Not read again while its stamp is that of *before*."""
    try:
        found = path.stat()
        stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
        if before is not None and before.stamp == stamp:
            return before
        return Seen(stamp, sha256(path.read_bytes()).digest())
    except OSError:
        return None
