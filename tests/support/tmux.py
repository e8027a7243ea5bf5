"""A command in tmux: a terminal emulator, so that what a person sees is what is tested."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.eventually import eventually

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Tmux:
    """Runs *argv* in a window of its own server; a context manager that ends both."""

    def __init__(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], columns: int = 80, rows: int = 24
    ) -> None:
        # A socket's path may have 107 bytes: not below a test's own folder.
        self._folder = tempfile.TemporaryDirectory(prefix="tmux-")
        self._status = Path(self._folder.name) / "status"
        # Ctrl-C reaches the shell as well, which would end after the command without the trap.
        window = f'trap : INT; "$@"; echo $? >{self._status}; sleep 60'
        self._tmux(
            *("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows)),
            *("-c", str(cwd), "sh", "-c", window, "sh", *argv),
            env={**env, "TERM": "xterm-256color"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note("\n".join(["the screen:", *self.screen()]))
        try:
            self._tmux("kill-server")
        finally:
            self._folder.cleanup()

    def screen(self) -> list[str]:
        """The lines that are seen now, without blanks at their ends and without empty ones at the end."""
        return [line.rstrip() for line in self._tmux("capture-pane", "-p").rstrip().splitlines()]

    def shows(self, *lines: str) -> None:
        """Wait until *lines* are the last ones on the screen."""
        eventually(
            lambda: self.screen()[-len(lines) :] == list(lines),
            within=20,
            what=f"the screen to end with {lines}",
        )

    def type(self, text: str) -> None:
        """Type *text* and press Return."""
        self._tmux("send-keys", "-l", text)
        self.press("Enter")

    def press(self, key: str) -> None:
        """Press a key by tmux's name for it: `C-c`, `C-d`, `Up`."""
        self._tmux("send-keys", key)

    def left_with(self) -> int:
        """Wait until the command has ended; its exit status."""
        return int(eventually(lambda: self._status.exists() and self._status.read_text(), within=20))

    def _tmux(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            ["tmux", "-S", f"{self._folder.name}/socket", *words],
            capture_output=True,
            text=True,
            env=None if env is None else dict(env),
            timeout=20,
            check=True,
        )
        return done.stdout
