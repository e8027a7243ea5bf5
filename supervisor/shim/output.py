"""What the engine says: lines, a ring of the last ones, and size-limited log files."""

from __future__ import annotations

import os
import re
from collections import deque

from supervisor.shim.processes import quietly

TAIL_LINES = 200
LINE_CHARS = 1000
"""A line is cut here: the ring stays under 1 MB whatever an engine prints."""
PROGRESS_LOG_EVERY = 1.0
"""A progress bar is logged at most this often: tqdm redraws ten times a second for minutes."""

LINE_END = re.compile(rb"(\r\n|\n|\r(?!\Z))")
"""A carriage return at the very end waits for what follows it."""
ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[@-Z\\-_])")


class LogFile:
    """Size-limited log files: `path` and `path.1`. A full disk loses lines, never the shim."""

    def __init__(self, path: str, limit: int, *, as_stderr: bool = False) -> None:
        self.path = path
        self.limit = limit
        self._as_stderr = as_stderr
        self.lost_bytes = 0
        self._fd = -1
        self._size = 0
        self._open()

    def _open(self) -> None:
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._size = os.fstat(self._fd).st_size
            if self._as_stderr:
                os.dup2(self._fd, 2)  # our own tracebacks follow, and the rotated file is let go
        except OSError:
            self._fd = -1

    def _rotate(self) -> None:
        os.close(self._fd)
        try:
            os.replace(self.path, self.path + ".1")
        except OSError:  # a folder we may not change; the limit holds all the same
            quietly(lambda path: os.truncate(path, 0), self.path)
        self._open()

    def write(self, line: str) -> None:
        """Append a line, rotating first when it would not fit."""
        data = line.encode("utf-8", "replace") + b"\n"
        if self._fd < 0:
            self._open()
        elif self._size + len(data) > self.limit:
            self._rotate()
        if self.lost_bytes:
            data = f"[modelyard] {self.lost_bytes} bytes of output could not be written\n".encode() + data
        try:
            self._size += os.write(self._fd, data)
            self.lost_bytes = 0
        except OSError:
            self.lost_bytes += len(data)


class Output:
    """What the engine says: split into lines, kept in a ring, written to the log.

    A line that ends in a bare carriage return (a progress bar) is the *open* line: each one replaces the one
    before, as on a terminal, and it becomes a line of the ring when something else follows on a new line.
    """

    def __init__(self, log: LogFile) -> None:
        self.log = log
        self.ring: deque[str] = deque(maxlen=TAIL_LINES)
        self.count = 0
        """Lines there ever were."""
        self.open = ""
        self.last_at: float | None = None
        self._partial = b""
        self._bar_logged_at = 0.0

    def feed(self, data: bytes, now: float) -> None:
        """Take a piece of output, cut anywhere."""
        self.last_at = now
        self._partial += data
        *pieces, self._partial = LINE_END.split(self._partial)
        for text, end in zip(pieces[::2], pieces[1::2]):  # noqa: B905 - `strict` is newer than 3.9
            line = clean(text)
            if end != b"\r":
                self._line(line or self.open)
                self.open = ""
            elif line:
                self.open = line
                if now - self._bar_logged_at >= PROGRESS_LOG_EVERY:
                    self._bar_logged_at = now
                    self.log.write(line)
        if len(self._partial) > 4 * LINE_CHARS:  # no line end in sight: an engine may print megabytes
            self._line(clean(self._partial))
            self._partial = b""

    def finish(self) -> None:
        """No more will come."""
        rest = clean(self._partial) or self.open
        self._partial, self.open = b"", ""
        if rest:
            self._line(rest)

    def note(self, text: str) -> None:
        """A word of our own, in the log only."""
        self.log.write(f"[modelyard] {text}")

    def _line(self, line: str) -> None:
        self.log.write(line)
        if line:
            self.ring.append(line)
            self.count += 1

    def current(self) -> str:
        """The line that has not ended yet."""
        return clean(self._partial) or self.open

    def since(self, count: int) -> list[str]:
        """Lines after the *count*-th, as far as the ring goes."""
        new = min(self.count - count, len(self.ring))
        return list(self.ring)[len(self.ring) - new :] if new > 0 else []

    def tail(self, n: int = TAIL_LINES) -> list[str]:
        """The last lines, the open one included."""
        lines = list(self.ring)
        current = self.current()
        if current:
            lines.append(current)
        return lines[-n:] if n > 0 else []


def clean(data: bytes) -> str:
    """Text without colours and control characters, cut to a sane length."""
    text = ANSI.sub("", data[: 4 * LINE_CHARS].decode("utf-8", "replace"))
    return "".join(c for c in text if c >= " " or c == "\t").rstrip()[:LINE_CHARS]
