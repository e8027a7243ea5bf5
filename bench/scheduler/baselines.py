"""What others do, on the same traces: three policies over one small event loop.

A model is stopped only when it is idle, and nobody of these closes a busy one's way for somebody who waits.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

from bench.scheduler.outcome import Outcome, outcome_of
from bench.scheduler.traces import STOP_SECONDS, Trace


class Phase(Enum):
    """Where a model is."""

    OUT = "out"
    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(slots=True)
class Slot:
    """One model's place."""

    phase: Phase = Phase.OUT
    in_flight: int = 0
    used: float = 0.0
    """When it last came into or went out of use."""
    queue: deque[int] = field(default_factory=deque)
    """Requests that wait for it, by number."""


class Engines:
    """A device with models on it; a policy decides what is loaded and stopped."""

    def __init__(self, trace: Trace, consider: Callable[[Engines], None]) -> None:
        self.trace = trace
        self.now = 0.0
        self.slots = [Slot() for _ in trace.models]
        self.loads = 0
        self.loading = 0.0
        self._consider = consider
        self._waits: list[float | None] = [None] * len(trace.arrivals)
        self._ahead = [0] * len(trace.arrivals)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def run(self, name: str) -> Outcome:
        """All requests, until the last has come and a little longer."""
        for number in range(len(self.trace.arrivals)):
            at = self.trace.arrivals[number][0]
            self._later(at, partial(self._arrive, number))
        while self._events and self._events[0][0] <= self.trace.end:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
            self._consider(self)
        return outcome_of(name, self.trace, self._waits, self._ahead, loads=self.loads, loading=self.loading)

    def _later(self, at: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._order), happen))

    def _arrive(self, number: int) -> None:
        model = self.trace.arrivals[number][1]
        slot = self.slots[model]
        self._ahead[number] = sum(1 for other in self.slots if other is not slot and other.queue)
        if slot.phase is Phase.READY:
            self._serve(number)  # past everybody who waits for something else
        else:
            slot.queue.append(number)

    def _serve(self, number: int) -> None:
        at, model, service = self.trace.arrivals[number]
        self._waits[number] = self.now - at
        slot = self.slots[model]
        slot.in_flight += 1
        slot.used = self.now

        def done() -> None:
            slot.in_flight -= 1
            slot.used = self.now

        self._later(self.now + service, done)

    def load(self, model: int) -> None:
        """Begin to load it."""
        slot = self.slots[model]
        slot.phase = Phase.LOADING
        seconds = self.trace.models[model].load
        self.loads += 1
        self.loading += seconds

        def ready() -> None:
            slot.phase = Phase.READY
            slot.used = self.now
            while slot.queue:
                self._serve(slot.queue.popleft())

        self._later(self.now + seconds, ready)

    def stop(self, model: int) -> None:
        """Begin to stop it."""
        slot = self.slots[model]
        slot.phase = Phase.STOPPING

        def out() -> None:
            slot.phase = Phase.OUT

        self._later(self.now + STOP_SECONDS, out)

    def waiting(self) -> list[int]:
        """Models that are waited for and out, the longest waiting first."""
        found = [(slot.queue[0], model) for model, slot in enumerate(self.slots) if slot.queue]
        return [model for _, model in sorted(found) if self.slots[model].phase is Phase.OUT]

    def idle(self) -> list[int]:
        """Models that may be stopped, the least recently used first."""
        found = [
            (slot.used, model)
            for model, slot in enumerate(self.slots)
            if slot.phase is Phase.READY and not slot.in_flight
        ]
        return [model for _, model in sorted(found)]

    def loaded(self) -> list[int]:
        """Models that hold memory."""
        return [model for model, slot in enumerate(self.slots) if slot.phase is not Phase.OUT]

    def free(self) -> float:
        """GiB nobody holds."""
        return self.trace.budget_gib - sum(self.trace.models[m].gib for m in self.loaded())


def lru(engines: Engines) -> None:
    """By memory: whatever fits is loaded; else the least recently used idle ones go, if that is enough."""
    free = engines.free()
    gib = [model.gib for model in engines.trace.models]
    coming = sum(gib[m] for m, slot in enumerate(engines.slots) if slot.phase is Phase.STOPPING)
    for model in engines.waiting():
        if gib[model] <= free:
            engines.load(model)
            free -= gib[model]
            continue
        idle = engines.idle()
        if free + coming + sum(gib[m] for m in idle) < gib[model]:
            continue  # only busy ones could make room: others may go ahead
        while free + coming < gib[model]:
            victim = idle.pop(0)
            engines.stop(victim)
            coming += gib[victim]
        free -= gib[model]  # what becomes free is for this one


def one_at_a_time(engines: Engines) -> None:
    """As llama-swap does it by default: one model; a swap when it is idle, in the order of the requests."""
    waiting = engines.waiting()
    if not waiting:
        return
    loaded = engines.loaded()
    if not loaded:
        engines.load(waiting[0])
    elif engines.idle() == loaded:
        engines.stop(loaded[0])


def most_at_once(engines: Engines) -> None:
    """As Ollama and llama.cpp do it: at most so many models, however small; one pending load at a time."""
    waiting = engines.waiting()
    if not waiting or any(slot.phase in (Phase.LOADING, Phase.STOPPING) for slot in engines.slots):
        return
    most = max(int(engines.trace.budget_gib // max(model.gib for model in engines.trace.models)), 1)
    if len(engines.loaded()) < most:
        engines.load(waiting[0])
    elif idle := engines.idle():
        engines.stop(idle[0])


BASELINES: dict[str, Callable[[Engines], None]] = {
    "LRU by memory": lru,
    "FIFO, one at a time": one_at_a_time,
    "LRU by count": most_at_once,
}


def run_baselines(trace: Trace) -> list[Outcome]:
    """All of them on *trace*."""
    return [Engines(trace, consider).run(name) for name, consider in BASELINES.items()]
