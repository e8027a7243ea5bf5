"""The life of an instance: the states, the events, the commands, one table and one `step`.

Everything that decides what an instance does next is in `TRANSITIONS`; everything that happens because of it
is a `Command` that `supervisor.instance` performs. No I/O, no clock, no log here.

Theory of operation
-------------------
An *instance* serves one model; each of its process trees is an *incarnation*. News about a tree (READY,
NOT_READY, EXITED …) carries its incarnation, and news of an earlier one is dropped before it gets here.

- STOPPED is the only state without a tree, a reservation and a timer.
- STARTING covers every instance whose tree exists and has not proved itself: a fresh spawn, a tree that a
  new daemon has adopted, and one that a failed request made us doubt (SUSPECT). The proof is the same:
  the readiness steps. Leases taken before a doubt stay valid.
- READY is published: requests are leased to it. Nothing else ever is.
- DRAINING takes no new leases and waits for those that are out.
- STOPPING waits until the tree is empty. A tree that has to go because it hangs is *blamed*, so that its end
  counts as a crash and a hanging model is not relaunched by every request.
- BACKOFF and FAILED have no tree. BACKOFF ends by its timer; FAILED is a crash loop, and its timer allows one
  more try (half open).

WANTED is legal everywhere and a no-op where it cannot be met at once: who waits is the pool's business, and
the pool wants again when the instance is STOPPED. STOP is legal everywhere.
An event that is not in the row raises `IllegalEventError` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where an instance is. SLEEPING and WAKING are reserved for engines that can give memory back."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"


class Event(StrEnum):
    """What can happen to an instance."""

    WANTED = "wanted"
    """Admission lets it start."""
    ADOPTED = "adopted"
    """A tree of an earlier daemon was found."""
    SPAWN_FAILED = "spawn_failed"
    """There is no tree and there will be none."""
    READY = "ready"
    """Every readiness step passed."""
    NOT_READY = "not_ready"
    """Stalled, out of time, or a fatal answer."""
    SUSPECT = "suspect"
    """A request was refused or cut by it."""
    STOP = "stop"
    """Evicted, idle, unloaded or shut down."""
    DRAINED = "drained"
    """The last lease came back."""
    GRACE_OVER = "grace_over"
    """Draining or stopping took too long."""
    EXITED = "exited"
    """The tree is empty, and nobody is to blame or nobody asked yet."""
    EXITED_BLAMED = "exited_blamed"
    """The tree is empty after we ended it because it hung."""
    CRASH_LOOP = "crash_loop"
    """Too many crashes in the window."""
    RETRY_DUE = "retry_due"
    """The pause after a crash is over."""


class Command(StrEnum):
    """What the instance does because of an event, in the order given."""

    SPAWN = "spawn"
    PROBE = "probe"
    UNPROBE = "unprobe"
    PUBLISH = "publish"
    WITHDRAW = "withdraw"
    AWAIT_DRAIN = "await_drain"
    BLAME = "blame"
    TERMINATE = "terminate"
    KILL = "kill"
    RECLAIM = "reclaim"
    """Give back what the tree held: port, reservation, record. Once per tree."""
    BACK_OFF = "back_off"
    ARM_RETRY = "arm_retry"
    DISARM_RETRY = "disarm_retry"
    FAIL_WAITERS = "fail_waiters"
    """Answer those who wait with the cause. An incarnation that had been ready leaves them waiting, because
    a restart is likely to help; in FAILED nobody is left waiting."""


@dataclass(frozen=True, slots=True)
class Step:
    """The answer of `step`."""

    state: State
    commands: tuple[Command, ...] = ()


class IllegalEventError(Exception):
    """An event that the table has no row for: a bug of ours. Nothing was changed."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"{event.name} is illegal in {state.name}")
        self.state = state
        self.event = event


_S, _E, _C = State, Event, Command

TRANSITIONS: Final[Mapping[State, Mapping[Event, Step]]] = {
    _S.STOPPED: {
        _E.WANTED: Step(_S.STARTING, (_C.SPAWN,)),
        _E.ADOPTED: Step(_S.STARTING, (_C.PROBE,)),
        _E.STOP: Step(_S.STOPPED),
    },
    _S.STARTING: {
        _E.WANTED: Step(_S.STARTING),
        _E.SUSPECT: Step(_S.STARTING),
        _E.READY: Step(_S.READY, (_C.PUBLISH,)),
        _E.SPAWN_FAILED: Step(_S.BACKOFF, (_C.UNPROBE, _C.RECLAIM, _C.BACK_OFF, _C.FAIL_WAITERS)),
        _E.NOT_READY: Step(_S.STOPPING, (_C.UNPROBE, _C.BLAME, _C.FAIL_WAITERS, _C.TERMINATE)),
        _E.EXITED: Step(_S.BACKOFF, (_C.UNPROBE, _C.RECLAIM, _C.BACK_OFF, _C.FAIL_WAITERS)),
        _E.STOP: Step(_S.STOPPING, (_C.UNPROBE, _C.TERMINATE)),
    },
    _S.READY: {
        _E.WANTED: Step(_S.READY),
        _E.SUSPECT: Step(_S.STARTING, (_C.WITHDRAW, _C.PROBE)),
        _E.NOT_READY: Step(_S.STOPPING, (_C.WITHDRAW, _C.BLAME, _C.TERMINATE)),
        _E.EXITED: Step(_S.BACKOFF, (_C.WITHDRAW, _C.RECLAIM, _C.BACK_OFF)),
        _E.STOP: Step(_S.DRAINING, (_C.WITHDRAW, _C.AWAIT_DRAIN)),
    },
    _S.DRAINING: {
        _E.WANTED: Step(_S.DRAINING),
        _E.SUSPECT: Step(_S.DRAINING),
        _E.DRAINED: Step(_S.STOPPING, (_C.TERMINATE,)),
        _E.GRACE_OVER: Step(_S.STOPPING, (_C.TERMINATE,)),
        _E.EXITED: Step(_S.STOPPED, (_C.RECLAIM,)),
        _E.STOP: Step(_S.DRAINING),
    },
    _S.STOPPING: {
        _E.WANTED: Step(_S.STOPPING),
        _E.SUSPECT: Step(_S.STOPPING),
        _E.DRAINED: Step(_S.STOPPING),
        _E.GRACE_OVER: Step(_S.STOPPING, (_C.KILL,)),
        _E.SPAWN_FAILED: Step(_S.STOPPED, (_C.RECLAIM,)),
        _E.EXITED: Step(_S.STOPPED, (_C.RECLAIM,)),
        _E.EXITED_BLAMED: Step(_S.BACKOFF, (_C.RECLAIM, _C.BACK_OFF)),
        _E.STOP: Step(_S.STOPPING),
    },
    _S.BACKOFF: {
        _E.WANTED: Step(_S.BACKOFF),
        _E.CRASH_LOOP: Step(_S.FAILED, (_C.DISARM_RETRY, _C.FAIL_WAITERS, _C.ARM_RETRY)),
        _E.RETRY_DUE: Step(_S.STOPPED),
        _E.STOP: Step(_S.STOPPED, (_C.DISARM_RETRY,)),
    },
    _S.FAILED: {
        _E.WANTED: Step(_S.FAILED),
        _E.RETRY_DUE: Step(_S.STOPPED),
        _E.STOP: Step(_S.STOPPED, (_C.DISARM_RETRY,)),
    },
}
"""The whole machine. The diagram in docs/explanation/lifecycle.md is generated from it."""

PUBLISHED: Final = frozenset({State.READY})
"""States in which requests are leased to the instance."""

WITH_TREE: Final = frozenset({State.STARTING, State.READY, State.DRAINING, State.STOPPING})
"""States in which a process tree exists or may exist; they hold a reservation."""


def step(state: State, event: Event) -> Step:
    """What *event* does to an instance in *state*. Raises IllegalEventError for an event without a row."""
    found = TRANSITIONS[state].get(event)
    if found is None:
        raise IllegalEventError(state, event)
    return found
