"""The status kept fresh: one look for all, an event per change, nothing while nothing changes."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from router.control.events import PING_SECONDS, Event
from router.control.feed import EVERY, PENDING, StatusFeed, Watcher, change
from router.control.status import Status
from supervisor.lifecycle import State
from supervisor.ports import EventKind, SupervisorEvent
from tests.support.control import ControlWorld, Pair, Served, local_model, until
from tests.support.fake_fleet import instance_view
from tests.support.fakes import FakeClock


def status_of(world: ControlWorld) -> Status:
    async def scenario(served: Served) -> Status:
        found: Status = (await served.get("/api/status")).json()
        return found

    return world.run(scenario)


@pytest.fixture
def world() -> ControlWorld:
    made = ControlWorld()
    made.add(local_model("a"))
    made.add(local_model("b"))
    made.fleet.put(instance_view("a", State.READY))
    return made


# -- what counts as a change


def test_time_alone_is_no_change(world: ControlWorld) -> None:
    before = status_of(world)
    after = copy.deepcopy(before)
    after["at"] += 60
    after["uptime_seconds"] += 60
    after["models"][0]["idle_seconds"] = 60.0
    assert change(before, after) is None


def test_memory_that_breathes_is_no_change_and_memory_that_grows_is(world: ControlWorld) -> None:
    before = status_of(world)
    after = copy.deepcopy(before)
    after["models"][0]["memory"]["measured_bytes"] = 2**30 + 2**20
    after["models"][0]["memory"]["devices"][0]["measured_bytes"] = 2**30 + 2**20
    after["devices"][0]["used_bytes"] += 2**20
    assert change(before, after) is None
    after["models"][0]["memory"]["measured_bytes"] = 2**30 + 2**25
    found = change(before, after)
    assert found is not None
    assert [model["id"] for model in found["models"]] == ["a"]


Edit = Callable[[Status], None]


def _set(key: str, value: Any, *, model: int | None = None) -> Edit:
    def edit(status: Status) -> None:
        place: Any = status if model is None else status["models"][model]
        place[key] = value

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        _set("state", "starting", model=1),
        _set("note", "loading b 42%", model=1),
        _set("progress", 0.5, model=1),
        _set("in_flight", 3, model=0),
        _set("requests", 9, model=0),
        _set("idle_seconds", None, model=0),
        _set("oldest_wait_seconds", 0.5, model=0),
        _set("pinned", True, model=0),
        _set("waiting", 3),
        _set("stopping", True),
        _set("not_ready_because", "it is broken"),
        _set("default_model", "b"),
        _set("loop_lag_seconds", 0.4),
    ],
)
def test_what_an_operator_would_want_to_see_is_a_change(world: ControlWorld, edit: Edit) -> None:
    before = status_of(world)
    after = copy.deepcopy(before)
    edit(after)
    assert change(before, after) is not None


def event_with(number: int) -> Event:
    return Event(id=number, kind="instance_ready", model="a", incarnation=1, at=0.0, data={})


def test_a_change_names_what_came_what_went_and_nothing_else(world: ControlWorld) -> None:
    before = status_of(world)
    after = copy.deepcopy(before)
    after["models"][0]["in_flight"] = 1
    after["models"][1]["id"] = "c"
    seventh, eighth = (event_with(number) for number in (7, 8))
    after["recent_events"] = [eighth, seventh]
    before["recent_events"] = [seventh]
    found = change(before, after)
    assert found is not None
    assert [model["id"] for model in found["models"]] == ["a", "c"]
    assert found["gone"] == ["b"]
    assert found["recent_events"] == [eighth]
    assert set(found) == (set(before) | {"gone"}) - {"instances"}


# -- the stream


async def event(pair: Pair) -> tuple[str, Any]:
    size = int(await pair.reader.readline(), 16)
    text = (await pair.reader.readexactly(size + 2)).decode()
    kind, data, *_ = text.splitlines()
    return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def watching(served: Served) -> Pair:
    pair = await served.pair()
    await pair.send("GET", "/api/status/stream")
    status, headers = await pair.head()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    return pair


def test_the_whole_comes_first_and_then_each_change(world: ControlWorld) -> None:
    async def scenario(served: Served) -> None:
        pair = await watching(served)
        kind, whole = await event(pair)
        assert kind == "status"
        assert whole == (await served.get("/api/status")).json()
        world.clock.advance(EVERY)
        world.fleet.set("b", State.STARTING)
        happened = SupervisorEvent(EventKind.STATE_CHANGED, instance_view("b").model, 1, 1.7e9, {})
        world.events.publish(happened)
        world.clock.advance(EVERY)
        kind, news = await event(pair)
        assert kind == "change"
        assert [(model["id"], model["state"]) for model in news["models"]] == [("b", "starting")]
        assert [one["kind"] for one in news["recent_events"]] == ["instance_state_changed"]

    world.run(scenario)


def test_a_quiet_status_is_a_ping_now_and_then(world: ControlWorld) -> None:
    async def scenario(served: Served) -> None:
        pair = await watching(served)
        await event(pair)
        for _ in range(2):
            world.clock.advance(PING_SECONDS)
            assert await event(pair) == ("ping", {})

    world.run(scenario)


def test_a_daemon_that_stops_says_so_and_ends_the_answer(world: ControlWorld) -> None:
    async def scenario(served: Served) -> None:
        pair = await watching(served)
        await event(pair)
        served.door.end_streams()
        kind, said = await event(pair)
        assert (kind, said["reason"]) == ("end", "the daemon is stopping")
        assert await pair.reader.readline() == b"0\r\n"

    world.run(scenario)


def test_a_watcher_that_leaves_is_forgotten_and_nobody_looks_any_more(world: ControlWorld) -> None:
    async def scenario(served: Served) -> None:
        pair = await watching(served)
        await event(pair)
        assert world.clock.next_timer() == EVERY
        await pair.close()
        await until(lambda: world.clock.next_timer() is None)

    world.run(scenario)


# -- many watchers, slow watchers


class Looks:
    """A status that counts how often it is taken."""

    def __init__(self, status: Status) -> None:
        self.status = status
        self.taken = 0

    def __call__(self) -> Status:
        self.taken += 1
        return copy.deepcopy(self.status)


async def read(watcher: Watcher) -> tuple[str, Any]:
    kind, data = (await watcher.next() or b"").decode().splitlines()[:2]
    return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_one_look_serves_every_watcher(world: ControlWorld) -> None:
    clock, looks = FakeClock(), Looks(status_of(world))

    async def scenario() -> None:
        feed = StatusFeed(clock, looks)
        watchers = [feed.watch() for _ in range(5)]
        assert {(await read(watcher))[0] for watcher in watchers} == {"status"}
        looks.status["in_flight"] = 4
        clock.advance(EVERY)
        frames = [await watcher.next() for watcher in watchers]
        assert all(frame is frames[0] for frame in frames)
        assert looks.taken == 2
        for watcher in watchers:
            watcher.close()
        assert len(feed) == 0
        clock.advance(60)
        assert looks.taken == 2

    asyncio.run(scenario())


def test_changes_come_at_most_twice_a_second(world: ControlWorld) -> None:
    clock, looks = FakeClock(), Looks(status_of(world))

    async def scenario() -> None:
        watcher = StatusFeed(clock, looks).watch()
        await read(watcher)
        seen = 0
        for number in range(32):
            looks.status["in_flight"] = number
            clock.advance(2.0 / 32)
            while watcher.has_news:
                await read(watcher)
                seen += 1
        assert seen == 4

    asyncio.run(scenario())


def test_a_watcher_that_was_slow_gets_the_whole_and_goes_on_from_there(world: ControlWorld) -> None:
    clock, looks = FakeClock(), Looks(status_of(world))

    async def scenario() -> None:
        watcher = StatusFeed(clock, looks).watch()
        await read(watcher)
        for number in range(PENDING + 5):
            looks.status["in_flight"] = number + 1
            clock.advance(EVERY)
        kind, whole = await read(watcher)
        assert (kind, whole["in_flight"]) == ("status", PENDING + 5)
        assert not watcher.has_news
        looks.status["in_flight"] = 0
        clock.advance(EVERY)
        kind, news = await read(watcher)
        assert (kind, news["in_flight"]) == ("change", 0)

    asyncio.run(scenario())


def test_a_new_watcher_gets_ages_that_are_true(world: ControlWorld) -> None:
    clock, looks = FakeClock(), Looks(status_of(world))

    async def scenario() -> None:
        feed = StatusFeed(clock, looks)
        await read(feed.watch())
        looks.status["models"][0] |= {"idle_seconds": 40.0}
        clock.advance(EVERY)
        _, whole = await read(feed.watch())
        assert whole["models"][0]["idle_seconds"] == 40.0

    asyncio.run(scenario())


def test_how_fast_answers_come_is_part_of_it(world: ControlWorld) -> None:
    world.fleet.put(replace(instance_view("a", State.READY), oldest_lease_seconds=3.5, leases=1))
    model = status_of(world)["models"][0]
    assert (model["oldest_request_seconds"], model["tokens_per_second"]) == (3.5, None)
