"""Whether an instance is ready: walks its `LaunchSpec`'s steps, in order, against the living child.

Whether anybody listens is asked every 10 ms, which costs a refused connection; a server that answers "not
yet" is asked every 25 ms for the first minute, so that a request that waits is forwarded within 50 ms of the
engine's first good answer, and every 250 ms from then on. A start ends in one of: every step passed; a fatal
answer; a stranger on our port; `stall_timeout` without a sign of life (a new line, CPU or I/O of the tree);
or `start_timeout` in all. The child's end is not seen here: who asked calls the check off.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import structlog

from registry.engine import Answers, HttpOk, LaunchSpec, Lists, PortOwned, ReadinessStep
from supervisor import processes
from supervisor.listening import PortState, knock, port_state
from supervisor.milestone import note, own_words
from supervisor.ports import Child, ChildRecord, Clock, ReadinessListener, Timer
from supervisor.tasks import TaskScope

log = structlog.get_logger("modelyard.readiness")

KNOCK_EVERY = 0.01
"""Seconds between two tries to connect while nobody listens: some 20 us each."""
POLL_EVERY = 0.025
POLL_LATER = 0.25
POLL_EAGERLY_FOR = 60.0
"""After a minute of loading a quarter of a second is nothing, and engines log what they are asked."""
WATCH_EVERY = 1.0
"""Seconds between two looks at the tree for a sign of life and a note for people."""
PROBE_TIMEOUT = 5.0
"""A health page that takes longer is no answer yet: engines compile while holding the loop."""
FATAL_FOR = 3
"""Polls in a row: a fatal status or a stranger may be a moment's (a port being handed on)."""
SERVER_ERRORS = 3
"""Times that a 1-token request may fail with a 5xx before the start has."""
NOT_YET = frozenset({408, 425, 429, 503})
"""Statuses of a 1-token request that mean: later."""
EXCERPT = 200


class NotReadyError(Exception):
    """It will not become ready; the text says which step, and what was answered."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code
        """A `Diagnosis.code` where the check itself knows the cause."""


def loopback_client() -> httpx.AsyncClient:
    """A client for our own children: no proxy from the environment, no certificates to load."""
    return httpx.AsyncClient(trust_env=False, verify=False, timeout=PROBE_TIMEOUT)  # noqa: S501 - plain HTTP


@dataclass(frozen=True, slots=True)
class Inspection:
    """How to look at a tree; `port` and `effort` block and are called in a thread."""

    knock: Callable[[int], Awaitable[bool]] = knock
    """Whether anybody listens on a port."""
    port: Callable[[ChildRecord], PortState] = port_state
    effort: Callable[[ChildRecord], tuple[float, int]] = lambda record: processes.effort(
        processes.tree_of(record)
    )


class HttpReadiness:
    """`Readiness` by HTTP on loopback."""

    def __init__(
        self,
        *,
        tasks: TaskScope,
        clock: Clock,
        client: Callable[[], httpx.AsyncClient] = loopback_client,
        inspection: Inspection | None = None,
    ) -> None:
        self._tasks = tasks
        self._clock = clock
        self._client = client
        self._inspection = inspection or Inspection()

    def check(self, child: Child, spec: LaunchSpec, listener: ReadinessListener) -> Check:
        """Begin; one of the listener's `ready` and `not_ready` follows, unless it is called off."""
        check = Check(child, spec, listener, clock=self._clock, inspection=self._inspection)
        check.begin(self._tasks, self._client)
        return check


class Check:
    """One walk over the steps."""

    def __init__(
        self,
        child: Child,
        spec: LaunchSpec,
        listener: ReadinessListener,
        *,
        clock: Clock,
        inspection: Inspection,
    ) -> None:
        self._child = child
        self._spec = spec
        self._listener = listener
        self._clock = clock
        self._inspection = inspection
        self._phase = "starting"
        self._seen = "nothing yet"
        """The last answer, for the reason of a failure."""
        self._over = False
        self._tasks: list[asyncio.Task[Any]] = []
        self._deadline: Timer | None = None

    def begin(self, tasks: TaskScope, client: Callable[[], httpx.AsyncClient]) -> None:
        """Start the walk and the watch."""
        name = f"{self._spec.model} {self._child.record.incarnation}"
        self._deadline = self._clock.call_later(self._spec.start_timeout, self._out_of_time)
        self._tasks = [
            tasks.spawn(self._walk(client), name=f"readiness {name}"),
            tasks.spawn(self._watch(), name=f"readiness watch {name}"),
        ]

    def cancel(self) -> None:
        """Call it off; nothing is reported afterwards."""
        self._finish()

    def _finish(self) -> bool:
        """Whether this call ended it: whoever is first reports, everybody else is stopped."""
        if self._over:
            return False
        self._over = True
        if self._deadline is not None:
            self._deadline.cancel()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        return True

    def _fail(self, reason: str, *, code: str = "") -> None:
        if self._finish():
            self._listener.not_ready(reason, code=code)

    def _out_of_time(self) -> None:
        self._fail(f"not ready after {self._spec.start_timeout:g} s: {self._phase} ({self._seen})")

    # -- walking

    async def _walk(self, client: Callable[[], httpx.AsyncClient]) -> None:
        try:
            async with client() as http:
                for step in self._spec.readiness:
                    self._phase = describe(step, self._child.record.port)
                    await self._pass(step, http)
        except NotReadyError as error:
            self._fail(str(error), code=error.code)
            return
        if self._finish():
            self._listener.ready()

    async def _pass(self, step: ReadinessStep, http: httpx.AsyncClient) -> None:
        """Return when *step* has passed."""
        judge = StepJudge(step)
        began = self._clock.now()
        while True:
            while isinstance(step, PortOwned) and not await self._inspection.knock(self._child.record.port):
                await self._moment(KNOCK_EVERY)
            if await self._try(step, judge, http):
                return
            eager = self._clock.now() - began < POLL_EAGERLY_FOR
            await self._moment(POLL_EVERY if eager else POLL_LATER)

    async def _try(self, step: ReadinessStep, judge: StepJudge, http: httpx.AsyncClient) -> bool:
        """One look. Raises NotReadyError."""
        if isinstance(step, PortOwned):
            state = await asyncio.to_thread(self._inspection.port, self._child.record)
            passed = judge.port(self._child.record.port, state)
        else:
            try:
                response = await self._request(step, http)
            except httpx.HTTPError as error:
                judge.no_answer()
                self._seen = f"{type(error).__name__}: {error}"[:EXCERPT]
                return False
            passed = judge.answer(response.status_code, response.content)
        self._seen = judge.seen
        return passed

    async def _request(self, step: HttpOk | Lists | Answers, http: httpx.AsyncClient) -> httpx.Response:
        record = self._child.record
        headers = {"Authorization": f"Bearer {record.key}"} if record.key else {}
        base = f"http://127.0.0.1:{record.port}"
        if isinstance(step, Answers):
            # Waited for as long as the start may take: it is what makes lazy engines load.
            headers["Content-Type"] = "application/json"
            limits = httpx.Timeout(None, connect=PROBE_TIMEOUT)
            return await http.post(base + step.path, content=step.body, headers=headers, timeout=limits)
        path = step.path if isinstance(step, HttpOk) else "/v1/models"
        return await http.get(base + path, headers=headers)

    async def _moment(self, seconds: float) -> None:
        """Let time pass by the clock."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(seconds, partial(_set, over))
        try:
            await over
        finally:
            timer.cancel()

    # -- watching

    async def _watch(self) -> None:
        """Notes for people, and the end of a start that shows no sign of life."""
        stall = self._spec.stall_timeout
        every = min(WATCH_EVERY, stall / 4)
        alive_at = self._clock.now()
        last: Signs | None = None
        while True:
            tail = self._child.tail
            self._tell(note(self._phase, tail))
            cpu, io = await asyncio.to_thread(self._inspection.effort, self._child.record)
            now = self._clock.now()
            before, last = last, Signs(now, own_words(tail), cpu, io)
            if before is None or is_progress(before, last):
                alive_at = now
            elif now - alive_at >= stall:
                words = f"; its last words: {tail[-1][:EXCERPT]}" if tail else ""
                self._fail(f"stalled for {stall:g} s: {self._phase} ({self._seen}){words}")
                return
            await self._moment(every)

    def _tell(self, text: str) -> None:
        if not self._over:
            self._listener.progress(text)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


IDLE_CPU = 0.05
"""CPU seconds per second: a server that only answers our polls stays below, one that loads is far above."""
IDLE_IO = 64 * 1024
"""Bytes per second: the same."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What a tree had done by a moment."""

    at: float
    words: tuple[str, ...]
    cpu_seconds: float
    io_bytes: int


def is_progress(before: Signs, after: Signs) -> bool:
    """Whether the tree did something in between: a new line, or work beyond answering our polls."""
    elapsed = after.at - before.at
    cpu, io = after.cpu_seconds - before.cpu_seconds, after.io_bytes - before.io_bytes
    if after.words != before.words or cpu < 0:  # a process that ended takes its CPU time with it
        return True
    return cpu > max(0.02, IDLE_CPU * elapsed) or io > IDLE_IO * max(0.25, elapsed)


def describe(step: ReadinessStep, port: int) -> str:
    """What we wait for, for people."""
    match step:
        case PortOwned():
            return f"waiting for it to listen on port {port}"
        case HttpOk(path=path):
            return f"waiting for {path}"
        case Lists(name=name):
            return f"waiting for /v1/models to list {name}"
        case Answers(path=path):
            return f"waiting for a first answer from {path}"


class StepJudge:
    """What answers to one step mean. Pure; counts what must be seen more than once."""

    def __init__(self, step: ReadinessStep) -> None:
        self._step = step
        self._bad = 0
        self.seen = "nothing yet"
        """The last answer, for people."""

    def no_answer(self) -> None:
        """Refused, reset or too slow: not yet."""
        self._bad = 0

    def port(self, port: int, state: PortState) -> bool:
        """Whether the port is ours. Raises NotReadyError when a stranger sits on it."""
        self.seen = state.stranger or "nobody listens"
        self._bad = self._bad + 1 if state.stranger else 0
        if self._bad >= FATAL_FOR:
            raise NotReadyError(f"port {port} belongs to {state.stranger}, not to us", code="port_taken")
        return state.owned

    def answer(self, status: int, body: bytes) -> bool:
        """Whether the answer passes the step. Raises NotReadyError when it never will."""
        text = " ".join(body[:EXCERPT].decode("utf-8", "replace").split())
        self.seen = f"status {status}: {text}" if text else f"status {status}"
        match self._step:
            case HttpOk():
                return self._http_ok(self._step, status, body)
            case Lists(name=name):
                return status == 200 and self._lists(name, body)
            case Answers():
                return self._answers(self._step, status)
            case PortOwned():
                raise AssertionError("a port is not asked by HTTP")

    def _http_ok(self, step: HttpOk, status: int, body: bytes) -> bool:
        self._bad = self._bad + 1 if status in step.fatal_statuses else 0
        if self._bad >= FATAL_FOR:
            raise NotReadyError(f"GET {step.path} says it failed: {self.seen}")
        if status != 200 or step.json_key is None:
            return status == 200
        data = _json(body)
        return isinstance(data, dict) and data.get(step.json_key) == step.json_value

    def _lists(self, name: str, body: bytes) -> bool:
        data = _json(body)
        rows = data.get("data") if isinstance(data, dict) else None
        if not isinstance(rows, list):
            return False
        names = [row.get("id") for row in rows if isinstance(row, dict)]
        self.seen = f"it lists {names}"[:EXCERPT]
        return name in names

    def _answers(self, step: Answers, status: int) -> bool:
        if status == 200:
            return True
        later = status in NOT_YET and status not in step.fatal_statuses
        if status in step.fatal_statuses or (400 <= status < 500 and not later):
            raise NotReadyError(f"POST {step.path} was refused: {self.seen}")
        self._bad = 0 if later else self._bad + 1
        if self._bad >= SERVER_ERRORS:
            raise NotReadyError(f"POST {step.path} failed {SERVER_ERRORS} times: {self.seen}")
        return False


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
