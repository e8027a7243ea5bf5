"""The daemon's way out while another takes over: start it, give it everything, serve what is open, go."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from router.handover import HandOverError, Successor
from router.upstreams import RetiredUpstreams
from supervisor.departure import let_go, settle

if TYPE_CHECKING:
    from router.wiring import Daemon

log = structlog.get_logger("modelyard.handover")

LONGEST: Final = 3600.0
"""Seconds for the streams that are open; what still goes on then is ended with a typed error."""
NOT_FOR_THE_NEXT: Final = frozenset({"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"})
"""Variables that name this very process; the sockets go another way."""
STAND_IN: Final = Path(__file__).with_name("stand_in.py")


def again() -> list[str]:
    """The command line that started this process."""
    return [sys.executable, *sys.orig_argv[1:]]


def code_stamp() -> float:
    """When the program on the disk was changed last; another stamp than at the start: another version."""
    root = Path(__file__).resolve().parents[1]
    parts = ("modelyard", "router", "supervisor", "registry", "config")
    files = [path for part in parts for path in (root / part).rglob("*.py")]
    return max((path.stat().st_mtime for path in files), default=0.0)


class Leaving:
    """Hands a daemon over, once; a try that fails leaves it as it was."""

    def __init__(self, daemon: Daemon, environment: Mapping[str, str]) -> None:
        self._daemon = daemon
        self._environment = {k: v for k, v in environment.items() if k not in NOT_FOR_THE_NEXT}
        self._code = code_stamp()
        self._busy = False
        self.successor: Successor | None = None
        """Set once it serves."""
        self.done = asyncio.Event()
        """Whoever runs the daemon may let it `finish`."""

    def code_changed(self) -> bool:
        """Whether another version was installed over the one that runs. Blocks for some milliseconds."""
        return code_stamp() != self._code

    async def hand_over(self) -> int:
        """Let a new process take over; its pid. Raises HandOverError, and then nothing has changed."""
        if self._busy:
            raise HandOverError("a hand-over is under way already")
        self._busy = True
        try:
            return await self._hand_over()
        except HandOverError as error:
            log.error("handover_failed", error=str(error))  # noqa: TRY400 - no bug of ours
            raise
        finally:
            self._busy = self.successor is not None

    async def _hand_over(self) -> int:
        daemon = self._daemon
        log.info("handover_begun", command=again())
        successor = await Successor.start(
            again(),
            self._environment,
            listeners=daemon.listeners,
            lock=daemon.state.lock,
            are_passed=daemon.are_passed,
        )
        # From here on nothing is decided here: there must never be two who do.
        retired = RetiredUpstreams(successor, daemon.endpoints)
        daemon.front.shared.upstreams = daemon.upstreams.after = retired
        await settle(daemon.supervisor)
        holding = let_go(daemon.supervisor, successor.returned)
        await asyncio.to_thread(daemon.journal.close)
        daemon.front.retire()
        daemon.door.end_streams()
        try:
            await successor.take_over(holding)
        except HandOverError:
            # It died between two lines. The models live on: whoever starts us again adopts them.
            log.critical("handover_lost", remedy="start the daemon again; it finds its models")
            self.done.set()
            raise
        self.successor = successor
        daemon.tasks.spawn(successor.listen(), name="successor")
        daemon.told_successor(successor.pid)
        log.info("handed_over", pid=successor.pid, in_flight=daemon.front.counters.in_flight)
        self.done.set()
        return successor.pid

    async def finish(self) -> None:
        """Serve what is open to its end, for at most `LONGEST` seconds."""
        await self._daemon.front.empty(LONGEST)
        if self.successor is not None:
            self.successor.close()


def stand_in(pid: int) -> None:
    """Become the small process that waits for *pid* in our place. Does not return."""
    os.execv(sys.executable, [sys.executable, "-I", "-S", str(STAND_IN), str(pid)])  # noqa: S606
