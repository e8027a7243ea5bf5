"""The status kept fresh: looked at twice a second while somebody watches, and told when it has changed.

A watcher first gets the whole (`event: status`, the shape of `/api/status`), then changes (`event: change`):
the same keys, but of `models` and `recent_events` only those that are new or different, `gone` for ids that
are no more, and no `instances`. Ages and countdowns grow by themselves and are no change: they are true at
`at`. Each look is taken, compared and encoded once, however many watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, TypedDict

import msgspec

from router.control.configuration import ConfigState
from router.control.events import PING_SECONDS, Event
from router.control.status import ModelStatus, Status, VirtualStatus
from supervisor.ports import Clock, Timer

EVERY: Final = 0.5
"""Seconds between two looks: as often as a person can follow. A look at 800 models takes 2 ms."""
PENDING: Final = 8
"""Changes that may wait for one watcher; one that is further behind gets the whole anew instead."""

_AGES: Final = frozenset(
    {"idle_seconds", "oldest_wait_seconds", "oldest_request_seconds", "eta_seconds", "retry_in_seconds"}
)
_OF_THE_MOMENT: Final = frozenset(
    {"at", "uptime_seconds", "loop_lag_seconds", "front", "models", "instances", "recent_events", "devices"}
)
_MEASURED: Final = frozenset({"used_bytes", "free_bytes", "measured_bytes"})
_GRAIN: Final = 16 * 2**20
"""Bytes: memory that moves by less is the breathing of processes, and no news."""


class Change(TypedDict):
    """What is new since the event before: the keys of a status, without `instances`."""

    version: str
    pid: int
    listen: list[str]
    at: float
    uptime_seconds: float
    ready: bool
    not_ready_because: str
    stopping: bool
    in_flight: int
    waiting: int
    loop_lag_seconds: float
    requests_per_second: float
    requests: dict[str, int]
    front: dict[str, int]
    devices: list[dict[str, Any]]
    default_model: str | None
    virtual: list[VirtualStatus]
    configuration: ConfigState
    models: list[ModelStatus]
    """Those that are new or different; the others are as they were, but for their ages."""
    recent_events: list[Event]
    """Those that are new, newest first."""
    gone: list[str]
    """Ids of models that can no longer be asked for."""


def change(before: Status, after: Status) -> Change | None:
    """What of *after* is new since *before*, in the shape of an event; None when nothing is. Pure."""
    old = {model["id"]: model for model in before["models"]}
    models = [model for model in after["models"] if _differs(old.pop(model["id"], None), model)]
    newest = before["recent_events"][0]["id"] if before["recent_events"] else 0
    events = [event for event in after["recent_events"] if event["id"] > newest]
    gone = list(old)
    if not (models or events or gone or _steady(before) != _steady(after)):
        return None
    return Change(
        version=after["version"],
        pid=after["pid"],
        listen=after["listen"],
        at=after["at"],
        uptime_seconds=after["uptime_seconds"],
        ready=after["ready"],
        not_ready_because=after["not_ready_because"],
        stopping=after["stopping"],
        in_flight=after["in_flight"],
        waiting=after["waiting"],
        loop_lag_seconds=after["loop_lag_seconds"],
        requests_per_second=after["requests_per_second"],
        requests=after["requests"],
        front=after["front"],
        devices=after["devices"],
        default_model=after["default_model"],
        virtual=after["virtual"],
        configuration=after["configuration"],
        models=models,
        recent_events=events,
        gone=gone,
    )


def _differs(before: ModelStatus | None, after: ModelStatus) -> bool:
    if before is after or before == after:
        return False
    return before is None or _face(before) != _face(after)


def _face(model: ModelStatus) -> dict[str, Any]:
    """What of a model is worth an event: ages only as "there is one", memory and progress coarsely."""
    face: dict[str, Any] = {key: bool(value) if key in _AGES else value for key, value in model.items()}
    # An age of zero is one as well; null is none.
    face["idle_seconds"] = model["idle_seconds"] is None
    progress, memory = model["progress"], model["memory"]
    face["progress"] = None if progress is None else round(progress, 2)
    face["memory"] = {**_coarse(memory), "devices": [_coarse(share) for share in memory["devices"]]}
    return face


def _steady(status: Status) -> dict[str, Any]:
    steady: dict[str, Any] = {key: value for key, value in status.items() if key not in _OF_THE_MOMENT}
    steady["lag"] = round(status["loop_lag_seconds"], 1)
    steady["devices"] = [_coarse(device) for device in status["devices"]]
    return steady


def _coarse(memory: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v // _GRAIN if k in _MEASURED and v is not None else v for k, v in memory.items()}


def _frame(kind: str, data: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(data, enc_hook=str))


STILL_HERE: Final = _frame("ping", {})
"""An event and no comment: pages are not told of comments, and would not see that the other side is gone."""
FAREWELL: Final = _frame("end", {"reason": "the daemon is stopping"})


class Watcher:
    """One page or program that watches. Close it when it goes."""

    def __init__(self, feed: StatusFeed) -> None:
        self._feed = feed
        self._frames: list[bytes] = []
        self._behind = True
        """Gets the whole next: it is new, or did not keep up."""
        self._over = False
        self._news = asyncio.Event()
        self._news.set()

    def offer(self, frame: bytes) -> None:
        """Queue *frame*; a watcher that has `PENDING` waiting will get the whole instead of all of them."""
        if len(self._frames) >= PENDING:
            self._behind = True
        if self._behind:
            self._frames.clear()
        else:
            self._frames.append(frame)
        self._news.set()

    @property
    def has_news(self) -> bool:
        """`next` would not wait."""
        return self._behind or bool(self._frames) or self._over

    async def next(self) -> bytes | None:
        """What to send next, waiting for it; None when there will be nothing more."""
        while not self.has_news:
            self._news.clear()
            await self._news.wait()
        if self._over and not self._frames:
            return None
        if self._behind and not self._over:
            self._behind = False
            self._frames.clear()
            return self._feed.whole()
        return self._frames.pop(0)

    def end(self) -> None:
        """The daemon stops: one last word, then None."""
        if not self._over:
            self._over = True
            self._frames.append(FAREWELL)
            self._news.set()

    def close(self) -> None:
        """It has left."""
        self._feed.forget(self)


class StatusFeed:
    """Looks at the status while there are watchers, and tells them. Belongs to the event loop's thread."""

    def __init__(self, clock: Clock, take: Callable[[], Status]) -> None:
        self._clock = clock
        self._take = take
        self._watchers: set[Watcher] = set()
        self._timer: Timer | None = None
        self._last: Status | None = None
        self._whole: bytes | None = None
        self._quiet = 0.0

    def __len__(self) -> int:
        return len(self._watchers)

    def watch(self) -> Watcher:
        """A new watcher. Its first frame is the whole status."""
        watcher = Watcher(self)
        self._watchers.add(watcher)
        if self._timer is None:
            self._last, self._whole = self._take(), None
            self._timer = self._clock.call_later(EVERY, self._look)
        return watcher

    def forget(self, watcher: Watcher) -> None:
        """It watches no more. Without watchers nothing is looked at."""
        self._watchers.discard(watcher)
        if not self._watchers and self._timer is not None:
            self._timer.cancel()
            self._timer = self._last = self._whole = None

    def whole(self) -> bytes:
        """The status that the next change refers to; encoded once, whoever asks."""
        if self._whole is None:
            self._whole = _frame("status", self._last or self._take())
        return self._whole

    def _look(self) -> None:
        self._timer = self._clock.call_later(EVERY, self._look)
        now = self._take()
        found = None if self._last is None else change(self._last, now)
        # Kept even when nothing is new: whoever comes next gets ages that are true.
        self._last, self._whole = now, None
        if found is not None:
            self._quiet = 0.0
            self._tell(_frame("change", found))
            return
        self._quiet += EVERY
        if self._quiet >= PING_SECONDS:
            self._quiet = 0.0
            self._tell(STILL_HERE)

    def _tell(self, frame: bytes) -> None:
        for watcher in tuple(self._watchers):
            watcher.offer(frame)
