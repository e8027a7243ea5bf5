"""A command at a terminal of its own, so that what a person sees and types can be tested."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

DEADLINE_SECONDS = 20.0

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r")


class PseudoTerminal:
    """Runs *argv* with a terminal as standard input, output and error."""

    def __init__(self, argv: Sequence[str], *, cwd: str, env: Mapping[str, str], columns: int = 120) -> None:
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env={**env, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40"},
            start_new_session=True,
        )
        os.close(theirs)
        self.raw = ""
        self._seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._ours)

    @property
    def screen(self) -> str:
        """Everything written so far, without the terminal's control sequences."""
        return _ESCAPES.sub("", self.raw)

    def expect(self, text: str) -> None:
        """Read until *text* appears after what was expected before; fails with the screen at the deadline."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while text not in self.screen[self._seen :]:
            assert self._read(deadline), f"{text!r} did not come; the screen:\n{self.screen}"
        self._seen = self.screen.index(text, self._seen) + len(text)

    def type(self, text: str) -> None:
        """Type *text*; `\\n` is Return, `\\x04` Ctrl-D."""
        os.write(self._ours, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C: the signal goes to the foreground process group, as from a keyboard."""
        os.killpg(self._process.pid, signal.SIGINT)

    def leave(self) -> int:
        """Wait for the end and return the exit status."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self._read(deadline):
            pass
        return self._process.wait(timeout=DEADLINE_SECONDS)

    def _read(self, deadline: float) -> bool:
        """Take what was written; False when it ended or the deadline passed."""
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # Linux says EIO when the other side is closed
            return False
        self.raw += data.decode(errors="replace")
        return bool(data)
