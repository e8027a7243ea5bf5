"""The engine and everything below it: spawn, reap, stop."""

from __future__ import annotations

import os
import signal

from supervisor.shim.blocks import blocks_of, unlink_unused
from supervisor.shim.output import Output
from supervisor.shim.processes import (
    LINUX,
    PR_SET_PDEATHSIG,
    Process,
    descendants,
    is_tracker,
    prctl,
    process_table,
    send_signal,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from supervisor.shim.entry import Order

STRAGGLER_GRACE = 3.0
"""From the engine's own end to SIGKILL for what it left behind; vLLM's workers need a second or two."""
TRACKER_GRACE = 2.0
RESET = (
    signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE,
    signal.SIGQUIT, signal.SIGTERM, signal.SIGXFSZ,
)  # fmt: skip
"""What an engine must find at its default, whoever started us ignoring what (nohup, Python itself)."""


class SpawnError(Exception):
    """The engine could not be started; the text says why."""


class Tree:
    """The engine and everything below it: spawn, reap, stop. Told the time, never asks for it."""

    RUNNING, COMMAND, TERM, KILL, EMPTY = "running", "command", "term", "kill", "empty"

    def __init__(self, output: Output) -> None:
        self.output = output
        self.phase = self.RUNNING
        self.pid = 0
        self.code: int | None = None
        self.signal: int | None = None
        self.ended = False
        """The engine's own process has been reaped."""
        self._env: dict[str, str] = {}
        self._cwd = "/"
        self._command_pid = 0
        self._umask = 0o022
        self._grace = 0.0
        self._repeat: float | None = None
        self._term_at: float | None = None
        self._kill_at = 0.0
        self._next_kill = 0.0
        self._pause = 0.02
        self._tracker_at: float | None = None
        self._blocks: set[str] = set()
        """Shared memory that its processes had when they were told to end."""

    # spawning

    def spawn(self, order: Order, umask: int) -> int:
        """Start the engine; returns the reading end of its output. Raises SpawnError."""
        self._env, self._cwd, self._umask = order.env, order.cwd, umask
        out_read, out_write = os.pipe()
        try:
            self.pid = self._fork(order.argv, order.env, order.cwd, out_write, order.oom_score)
        except BaseException:
            os.close(out_read)
            raise
        finally:
            os.close(out_write)
        os.set_blocking(out_read, False)
        return out_read

    def _fork(self, argv: list[str], env: dict[str, str], cwd: str, out: int, oom: int) -> int:
        parent = os.getpid()
        err_read, err_write = os.pipe()  # closed by a successful exec: then there is nothing to read
        pid = os.fork()
        if pid == 0:
            try:
                self._become(argv, env, cwd, out, oom, parent)
            except BaseException as error:  # noqa: BLE001 - the child of a fork must not run on as a shim
                os.write(err_write, str(error).encode("utf-8", "replace")[:4000] or b"unknown")
            os._exit(127)
        os.close(err_write)
        with os.fdopen(err_read, "rb") as pipe:
            error_text = pipe.read()
        if error_text:
            os.waitpid(pid, 0)
            raise SpawnError(f"cannot run {argv[0]}: {error_text.decode('utf-8', 'replace')}")
        return pid

    def _become(
        self, argv: list[str], env: dict[str, str], cwd: str, out: int, oom: int, parent: int
    ) -> None:
        os.setpgid(0, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above: no signal will ever come
            os._exit(127)
        for number in RESET:
            signal.signal(number, signal.SIG_DFL)
        os.umask(self._umask)
        if LINUX and oom:
            try:
                with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:
                    raised = min(1000, int(file.read()) + oom)
                    file.seek(0)
                    file.write(str(raised))
            except (OSError, ValueError):
                pass
        os.chdir(cwd)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.execvpe(argv[0], argv, env)

    # ending

    def stop(self, now: float, policy: dict[str, Any]) -> None:
        """Begin to end it; a second call can only shorten the first one's patience."""
        grace = max(0.0, float(policy.get("grace", 20.0)))
        if self.phase == self.TERM:
            self._kill_at = min(self._kill_at, now + grace)
        if self.phase != self.RUNNING:
            return
        repeat = policy.get("repeat_term")
        self._grace, self._repeat = grace, float(repeat) if repeat else None
        command = policy.get("command")
        if command:
            self._start_command([str(word) for word in command])
        self.phase = self.COMMAND
        self._kill_at = now + grace if self._command_pid else now

    def kill(self, now: float) -> None:
        """End it now."""
        if self.phase != self.EMPTY:
            self.phase, self._next_kill = self.KILL, now

    def _start_command(self, command: list[str]) -> None:
        out = os.open(os.devnull, os.O_WRONLY)
        try:
            self._command_pid = self._fork(command, self._env, self._cwd, out, 0)
        except (SpawnError, OSError) as error:
            self.output.note(f"cmd_stop failed: {error}")
        finally:
            os.close(out)

    def reap(self) -> None:
        """Collect whoever ended; on Linux ECHILD is the proof that the tree is empty."""
        while self.phase != self.EMPTY:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                if LINUX or not descendants(process_table(), os.getpid(), self.pid):
                    self.phase = self.EMPTY
                    for name in unlink_unused(self._blocks):
                        self.output.note(f"removed shared memory that nobody uses any more: {name}")
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.ended = True
                if os.WIFSIGNALED(status):
                    self.signal = os.WTERMSIG(status)
                else:
                    self.code = os.WEXITSTATUS(status)
            elif pid == self._command_pid:
                self._command_pid = 0

    def advance(self, now: float) -> float | None:
        """Do what is due; returns when to be called again at the latest, None for when something happens."""
        self.reap()
        if self.phase == self.RUNNING and self.ended:
            self.output.note("the engine ended; ending what it left behind")
            self._terminate(now, STRAGGLER_GRACE)
        elif self.phase == self.COMMAND and (not self._command_pid or now >= self._kill_at):
            self._terminate(now, self._grace)
        if self.phase == self.TERM:
            if self.ended:
                self._kill_at = min(self._kill_at, now + STRAGGLER_GRACE)
            if now >= self._kill_at:
                self.kill(now)
            elif self._term_at is not None and now >= self._term_at:
                self._signal_all(signal.SIGTERM)
                self._term_at = now + (self._repeat or 0.0)
        if self.phase == self.KILL:
            self._kill_all(now)
        return self._due()

    def _due(self) -> float | None:
        if self.phase == self.COMMAND:
            return self._kill_at
        if self.phase == self.TERM:
            return self._kill_at if self._term_at is None else min(self._kill_at, self._term_at)
        if self.phase == self.KILL:
            return self._next_kill
        return None

    def _terminate(self, now: float, grace: float) -> None:
        self.phase = self.TERM
        self._kill_at = now + grace
        self._term_at = now + self._repeat if self._repeat else None
        self._signal_all(signal.SIGTERM)

    def _living(self) -> list[Process]:
        return descendants(process_table(), os.getpid(), self.pid)

    def _note_blocks(self, living: list[Process]) -> None:
        """To be called before they are signalled: afterwards nobody can say whose it was."""
        for process in living:
            self._blocks |= blocks_of(process.pid)

    def _signal_all(self, number: int) -> None:
        """The engine's group in one call, so that no fork slips through, then everybody outside of it."""
        self._note_blocks(self._living())
        if not self.ended:  # not reaped: neither the pid nor the group's number can have been reused
            try:
                os.killpg(self.pid, number)
            except OSError:
                pass
        for process in self._living():
            if (self.ended or process.pgid != self.pid) and not is_tracker(process.pid):
                send_signal(process, number)

    def _kill_all(self, now: float) -> None:
        """SIGKILL everybody but the trackers, again and again: what forks meanwhile is found next time."""
        if now < self._next_kill:
            return
        living = self._living()
        trackers = [process for process in living if is_tracker(process.pid)]
        tracker_pids = {process.pid for process in trackers}
        victims = [process for process in living if process.pid not in tracker_pids]
        if not victims and trackers:
            if self._tracker_at is None:
                self._tracker_at = now + TRACKER_GRACE
            if now >= self._tracker_at:
                victims = trackers
        self._note_blocks(victims)
        for process in victims:
            send_signal(process, signal.SIGKILL)
        self._pause = min(self._pause * 1.5, 1.0)  # somebody in the driver may stay unkillable for minutes
        self._next_kill = now + self._pause

    def exit(self) -> dict[str, Any] | None:
        """The exit report, None while anything lives."""
        if self.phase != self.EMPTY:
            return None
        return {"code": self.code, "signal": self.signal, "tail": self.output.tail()}
