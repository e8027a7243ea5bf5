"""Handing over to a new process without losing a request: what the two sides say to each other.

The daemon that leaves starts its successor with one end of a socket pair as an open descriptor and sends it
the listening sockets and the lock of the state directory along with the first line. Then, one JSON object a
line:

    successor  {"is": "prepared"}                     everything is read and checked, nothing was touched
    leaver     {"is": "go", "holding": {model: n}}    it decides nothing any more, and holds these leases
    successor  {"is": "serving"}                      it has attached to the shims and accepts connections
    leaver     {"is": "returned", "model": m}         one of those leases came back
    leaver     {"is": "lease", "id": 7, "ask": {"model": m, "timeout": 30.0, …}}
    successor  {"is": "granted", "id": 7, "port": …, "key": …, "generation": …}, or "refused" with the refusal
    leaver     {"is": "keep", "id": 7, "seconds": 300.0}   what the request asks for; -1: for ever
    leaver     {"is": "release", "id": 7, "outcome": "served"}, or {"is": "cancel", "id": 7}

So there is one book of leases from `go` on, the successor's: what the leaver still serves counts there, and
nothing that is being streamed is evicted. A side that dies closes the pair, and what it held is given back.
See docs/adr/0012.
"""

from __future__ import annotations

import array
import asyncio
import json
import math
import os
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import msgspec
import structlog

from registry.engine import ModelId
from router.errors import refusal_for
from router.ports import Lease, Outcome, Refusal
from router.shared import Spawn
from supervisor.errors import SupervisorError

log = structlog.get_logger("modelyard.handover")

VARIABLE: Final = "MODELYARD_HANDOVER_FD"
"""In the successor's environment: its end of the pair."""
PREPARED_WITHIN: Final = 120.0
"""Seconds for imports, configuration and checkpoints of a large fleet on a slow disk."""
SERVING_WITHIN: Final = 60.0
MOST_LISTENERS: Final = 16
LINE_BYTES: Final = 2**20
_OURS: Final = b"\n"
_PASSED: Final = b"p"
"""Whose the listeners are: a byte that comes with them."""


class HandOverError(Exception):
    """The successor did not come up; the text says why. This daemon serves on as before."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(500, "handover_failed", message, "server_error")


class CarriedRefusalError(Exception):
    """A refusal of the successor's, to be answered as it is."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Ask:
    """What a lease is asked for with; see `router.ports.Upstreams.lease`."""

    model: ModelId
    timeout: float | None
    request: str
    priority: int


class _Line:
    """Messages both ways over one socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> _Line:
        sock.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=LINE_BYTES))

    def say(self, what: str, **fields: Any) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"is": what, **fields}).encode() + b"\n")

    async def hear(self) -> dict[str, Any] | None:
        """The next message; None when the other side is gone."""
        try:
            line = await self._reader.readline()
            return dict(json.loads(line)) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        self._writer.close()


# -- the daemon that leaves ------------------------------------------------------------------------


class RemoteLease:
    """A lease in the successor's book, used here."""

    host = "127.0.0.1"
    tls = False
    revoked = False
    """What an operator takes away there is not told here: at worst a request is tried once more."""

    def __init__(self, successor: Successor, number: int, said: Mapping[str, Any]) -> None:
        self._successor: Successor | None = successor
        self._number = number
        self.port: int = said["port"]
        self.key: str = said["key"]
        self.generation: int = said["generation"]

    def keep(self, seconds: float) -> None:
        """Its instance is the successor's, so that is told."""
        if self._successor is not None:
            self._successor.keep(self._number, seconds)

    def release(self, outcome: Outcome) -> None:
        """Give it back; the second call does nothing."""
        successor, self._successor = self._successor, None
        if successor is not None:
            successor.release(self._number, outcome)


class Successor:
    """The process that takes over, as the one that leaves sees it."""

    def __init__(self, process: subprocess.Popen[bytes], line: _Line) -> None:
        self._process = process
        self._line = line
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Lease]] = {}
        self._gone = False
        self._going = asyncio.Event()
        """`go` was said: nothing may come before it."""
        self._early: list[ModelId] = []

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        listeners: Sequence[socket.socket],
        lock: int,
        are_passed: bool = False,
    ) -> Successor:
        """Start it, hand it the descriptors, and wait until it is prepared. Raises HandOverError.

        *are_passed*: the listeners are a service manager's.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                # Not asyncio's, whose processes are killed with the loop.
                process = await asyncio.to_thread(
                    subprocess.Popen[bytes],
                    command,
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={**environment, VARIABLE: str(theirs.fileno())},
                )
            except OSError as error:
                ours.close()
                raise HandOverError(f"cannot start {command[0]}: {error}") from error
        given = array.array("i", [lock, *(listener.fileno() for listener in listeners)])
        ours.sendmsg([_PASSED if are_passed else _OURS], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)])
        successor = cls(process, await _Line.over(ours))
        await successor._expect("prepared", PREPARED_WITHIN)
        return successor

    async def take_over(self, holding: Mapping[ModelId, int]) -> None:
        """Tell it that all is its own from here on, and wait until it serves. Raises HandOverError."""
        self._line.say("go", holding=dict(holding))
        self._going.set()
        for model in self._early:
            self._line.say("returned", model=model)
        await self._expect("serving", SERVING_WITHIN)

    async def _expect(self, what: str, within: float) -> None:
        try:
            async with asyncio.timeout(within):
                message = await self._line.hear()
        except TimeoutError:
            message, why = None, f"was not {what} within {within:g} s"
        else:
            why = f"ended before it was {what}"
        if message is None or message.get("is") != what:
            self._line.close()
            self._process.terminate()
            await asyncio.to_thread(self._process.wait)
            raise HandOverError(f"the new process {why}; what it wrote says why")

    async def listen(self) -> None:
        """Take its answers until it is gone; run as a task."""
        while (message := await self._line.hear()) is not None:
            future = self._asked.pop(message.get("id", 0), None)
            if future is None or future.done():
                if message["is"] == "granted":  # its asker has left meanwhile
                    self._line.say("release", id=message["id"], outcome=Outcome.ABANDONED.value)
            elif message["is"] == "granted":
                future.set_result(RemoteLease(self, message["id"], message))
            else:
                refusal = msgspec.convert(message["refusal"], Refusal)
                future.set_exception(CarriedRefusalError(refusal))
        self._gone = True
        for future in self._asked.values():
            if not future.done():
                future.set_exception(CarriedRefusalError(_GONE))

    async def lease(self, ask: Ask) -> Lease:
        """A lease from its book. Raises CarriedRefusalError."""
        await self._going.wait()
        if self._gone:
            raise CarriedRefusalError(_GONE)
        number = next(self._numbers)
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self._line.say("lease", id=number, ask=msgspec.to_builtins(ask))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().release(Outcome.ABANDONED)
            else:
                self._line.say("cancel", id=number)
            raise

    def keep(self, number: int, seconds: float) -> None:
        """How long the instance of a lease of its book is to stay."""
        self._line.say("keep", id=number, seconds=-1.0 if seconds == math.inf else seconds)

    def release(self, number: int, outcome: Outcome) -> None:
        """A lease of its book is over."""
        self._line.say("release", id=number, outcome=outcome.value)

    def returned(self, model: ModelId) -> None:
        """A lease that was out at `go` came back."""
        if self._going.is_set():
            self._line.say("returned", model=model)
        else:
            self._early.append(model)

    def close(self) -> None:
        """Hang up: what is still held is given back over there."""
        self._line.close()
        if self._process.poll() is None:
            self._process.returncode = 0  # it lives on, and is not ours to wait for


_GONE: Final = Refusal(
    503, "shutting_down", "the daemon that took over has ended", "server_error", retry_after=5.0
)


# -- the daemon that takes over --------------------------------------------------------------------


class Book:
    """What a successor needs of its supervisor."""

    def __init__(
        self,
        lease: Callable[[Ask], Awaitable[Lease]],
        returned: Callable[[ModelId], None],
    ) -> None:
        self.lease = lease
        self.returned = returned


class Predecessor:
    """The daemon that leaves, as its successor sees it."""

    def __init__(
        self, sock: socket.socket, lock: int, listeners: Sequence[socket.socket], *, are_passed: bool = False
    ) -> None:
        self.lock = lock
        self.are_passed = are_passed
        """The listeners are a service manager's."""
        self.listeners = tuple(listeners)
        self._sock = sock
        self._line: _Line | None = None
        self._held: dict[ModelId, int] = {}
        self._leases: dict[int, Lease] = {}
        self._asking: dict[int, asyncio.Task[Any]] = {}

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Predecessor | None:
        """The one that started us, or None. Takes the variable out of *environ*."""
        number = environ.pop(VARIABLE, "")
        if not number.isdecimal():
            return None
        sock = socket.socket(fileno=int(number))
        os.set_inheritable(sock.fileno(), False)
        whose, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(4 * (MOST_LISTENERS + 1)))
        descriptors = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        if len(descriptors) < 2:
            raise OSError("the daemon that started this one handed nothing over: start modelyard by itself")
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        listeners = [socket.socket(fileno=descriptor) for descriptor in descriptors[1:]]
        for listener in listeners:
            listener.setblocking(False)
        return cls(sock, descriptors[0], listeners, are_passed=whose == _PASSED)

    async def prepared(self) -> Mapping[ModelId, int]:
        """Say that we are, and wait to be told to go: the leases that are out. Raises HandOverError."""
        line = self._line = await _Line.over(self._sock)
        line.say("prepared")
        message = await line.hear()
        if message is None or message.get("is") != "go":
            raise HandOverError("the daemon that was to hand over has changed its mind")
        self._held = {ModelId(model): int(number) for model, number in message["holding"].items() if number}
        return dict(self._held)

    async def serve(self, book: Book, spawn: Spawn) -> None:
        """Say that we serve, then keep the leaver's leases until it is gone; run as a task."""
        line = self._line
        assert line is not None, "prepared() comes first"
        line.say("serving")
        while (message := await line.hear()) is not None:
            match message["is"]:
                case "returned":
                    self._returned(book, ModelId(message["model"]))
                case "lease":
                    work = self._lease(book, line, message)
                    number: int = message["id"]
                    self._asking[number] = spawn(work, name=f"lease for the leaver {number}")
                case "keep":
                    kept = self._leases.get(message["id"])
                    if kept is not None:
                        kept.keep(math.inf if message["seconds"] < 0 else message["seconds"])
                case "release":
                    lease = self._leases.pop(message["id"], None)
                    if lease is not None:
                        lease.release(Outcome(message["outcome"]))
                case "cancel":
                    task = self._asking.pop(message["id"], None)
                    if task is not None:
                        task.cancel()
        self._give_everything_back(book)
        log.info("predecessor_left")

    async def _lease(self, book: Book, line: _Line, message: Mapping[str, Any]) -> None:
        number = message["id"]
        try:
            lease = await book.lease(msgspec.convert(message["ask"], Ask))
        except SupervisorError as error:
            line.say("refused", id=number, refusal=msgspec.to_builtins(refusal_for(error)))
            return
        finally:
            self._asking.pop(number, None)
        self._leases[number] = lease
        line.say("granted", id=number, port=lease.port, key=lease.key, generation=lease.generation)

    def _returned(self, book: Book, model: ModelId) -> None:
        if self._held.get(model, 0) > 0:
            self._held[model] -= 1
            book.returned(model)

    def _give_everything_back(self, book: Book) -> None:
        for model, number in self._held.items():
            for _ in range(number):
                book.returned(model)
        self._held.clear()
        for lease in self._leases.values():
            lease.release(Outcome.ABANDONED)
        self._leases.clear()
        for task in tuple(self._asking.values()):
            task.cancel()
