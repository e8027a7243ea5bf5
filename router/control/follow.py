"""A log as it grows: its last lines, then each new one, through rotations and restarts of the engine.

`LogReader` is the blocking half and runs in threads; `follow` is the answer that it feeds. Files are looked
at a few times a second and not watched by inotify, which macOS does not have and network file systems do not
feed.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from aiohttp import web

from router.control.events import PING, PING_SECONDS
from router.control.streams import Streams, Turn
from supervisor.ports import Clock

LOG_BYTES: Final = 256 * 1024
"""Most that is read of a log at a time: a screenful is 10 KB, a traceback of nested workers 100 KB. Four
times a second that is more than an engine writes; one that writes more is followed late, not at our cost."""
LINE_BYTES: Final = 64 * 1024
"""A line without an end is passed on in pieces of this size."""
SOON, LATER = 0.25, 1.0
"""Seconds until the next look: after news, and when nothing has come for a while."""

GAP: Final = "[modelyard] lines are missing here: the log was rotated faster than it was read"


def read_tail(path: Path, *, lines: int) -> str:
    """The last *lines* lines of *path*, of at most its last `LOG_BYTES`. Blocks; raises FileNotFoundError."""
    with path.open("rb") as file:
        kept, _ = _tail(file, lines)
    return b"".join(kept).decode("utf-8", "replace")


def _tail(file: BinaryIO, lines: int) -> tuple[list[bytes], int]:
    """The last lines with their ends, and the offset behind them."""
    end = file.seek(0, os.SEEK_END)
    start = max(0, end - LOG_BYTES)
    file.seek(start)
    data = file.read(end - start)
    if start:
        # The first line is most likely cut.
        data = data.partition(b"\n")[2]
    return data.splitlines(keepends=True)[-lines:], file.tell()


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a log: which file, how far. Survives a rotation, for the file keeps its number."""

    inode: int
    offset: int

    def __str__(self) -> str:
        return f"{self.inode}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """The mark that was written as *text*; None for anything else."""
        inode, _, offset = text.partition("-")
        if len(text) > 40 or not (inode.isdecimal() and offset.isdecimal()):
            return None
        return cls(int(inode), int(offset))


class LogReader:
    """Reads the log at *path*, which is rotated to `path.1`. Blocks. From any thread; close it."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._path = path
        self._before = path.with_name(f"{path.name}.1")
        self._file: BinaryIO | None = None
        self._inode = 0
        self._offset = 0
        self._partial = b""

    @property
    def mark(self) -> Mark:
        """Behind the last line that was returned."""
        return Mark(self._inode, self._offset - len(self._partial))

    def begin(self, *, lines: int, after: Mark | None = None) -> list[str]:
        """The lines after *after*, if that place still exists, else the last *lines* lines.

        Raises FileNotFoundError when there is no log.
        """
        with self._lock:
            return self._begin(lines, after)

    def more(self) -> list[str]:
        """Lines that have come since; at most `LOG_BYTES` of them, the rest with the next call."""
        with self._lock:
            return self._more()

    def close(self) -> None:
        """Let the file go, once a read under way in another thread is done."""
        with self._lock:
            self._closed = True
            self._let_go()

    # -- inside ------------------------------------------------------------------------------------

    def _begin(self, lines: int, after: Mark | None) -> list[str]:
        for path in (self._path, self._before) if after is not None else ():
            if after is not None and self._open(path) and self._holds(after):
                self._seek(after.offset)
                return self._more()
        if not self._open(self._path):
            raise FileNotFoundError(self._path)
        assert self._file is not None
        kept, self._offset = _tail(self._file, lines)
        return self._split(b"".join(kept))

    def _more(self) -> list[str]:
        data = self._read()
        if data:
            return self._split(data)
        if self._file is not None and self._seems_current():
            return []
        # Rotated (or gone): what was written between our last read and the rotation is still in the old file.
        last = self._read() if self._file is not None else b""
        if last:
            return self._split(last)
        said = self._split(b"\n") if self._partial else []
        old, missed = self._inode, self._file is not None and self._number(self._before) != self._inode
        if not self._open(self._path):
            return said
        if old and missed:
            said.append(GAP)
        return said + self._split(self._read())

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, path: Path) -> bool:
        if self._closed:  # the caller left while we were reading: nobody would close it
            return False
        try:
            file = path.open("rb")
        except OSError:
            return False
        self._let_go()
        self._file, self._partial, self._offset = file, b"", 0
        self._inode = os.fstat(file.fileno()).st_ino
        return True

    def _holds(self, mark: Mark) -> bool:
        assert self._file is not None
        return mark.inode == self._inode and mark.offset <= os.fstat(self._file.fileno()).st_size

    def _seek(self, offset: int) -> None:
        assert self._file is not None
        self._offset = self._file.seek(offset)

    def _read(self) -> bytes:
        if self._file is None:
            return b""
        data = self._file.read(LOG_BYTES)
        self._offset += len(data)
        return data

    def _seems_current(self) -> bool:
        """The file we read is still the one under the name; a shortened one is begun anew."""
        assert self._file is not None
        found = self._number(self._path)
        if found is not None and found == self._inode:
            if os.fstat(self._file.fileno()).st_size < self._offset:
                self._partial = b""
                self._seek(0)
            return True
        # Gone for now: between the two steps of a rotation, or until the engine writes again.
        return found is None and self._number(self._before) is None

    @staticmethod
    def _number(path: Path) -> int | None:
        try:
            return path.stat().st_ino
        except OSError:
            return None

    def _split(self, data: bytes) -> list[str]:
        *whole, rest = (self._partial + data).split(b"\n")
        while len(rest) > LINE_BYTES:
            whole.append(rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        self._partial = rest
        return [line.removesuffix(b"\r").decode("utf-8", "replace") for line in whole]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a follower asked for."""

    lines: int
    """Of what is there already."""
    after: Mark | None
    as_events: bool
    """Server-sent events `{"lines": [...]}` with a place to resume from, instead of plain text."""


async def follow(
    request: web.Request, reader: LogReader, wish: Wish, *, streams: Streams, clock: Clock
) -> web.StreamResponse:
    """Answer with the log until the caller leaves or the daemon stops.

    Raises FileNotFoundError, before anything was answered, when there is no log.
    """
    turn = Turn(clock)
    with streams.open(turn.end):
        try:
            lines = await asyncio.to_thread(reader.begin, lines=wish.lines, after=wish.after)
            kind = "text/event-stream" if wish.as_events else "text/plain; charset=utf-8"
            # nginx would keep a quiet stream to itself until it has collected a buffer of it.
            response = web.StreamResponse(headers={"Content-Type": kind, "X-Accel-Buffering": "no"})
            await response.prepare(request)
            wait, quiet = SOON, 0.0
            while True:
                if lines:
                    await response.write(_frame(lines, reader.mark) if wish.as_events else _text(lines))
                    wait, quiet = SOON, 0.0
                elif wish.as_events and quiet >= PING_SECONDS:
                    await response.write(PING)
                    quiet = 0.0
                if not await turn.pause(wait):
                    return response
                wait, quiet = min(wait * 2, LATER), quiet + wait
                lines = await asyncio.to_thread(reader.more)
        finally:
            # In a thread: a read that is still under way there is waited for.
            await asyncio.to_thread(reader.close)


def _text(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _frame(lines: Sequence[str], mark: Mark) -> bytes:
    return b"id: %s\ndata: %s\n\n" % (str(mark).encode(), msgspec.json.encode({"lines": lines}))
