"""Events: numbered, kept, streamed, bounded."""

from __future__ import annotations

import asyncio
import json

import pytest

from registry.engine import ModelId
from router.control.events import KEPT, MOST_LISTENERS, PENDING, PING, PING_SECONDS, EventRing
from router.errors import ControlBusyError
from supervisor.lifecycle import State
from supervisor.ports import EventKind, SupervisorEvent
from tests.support.control import ControlWorld, Pair, Served, until
from tests.support.fakes import FakeClock


def event(number: int = 0, **data: object) -> SupervisorEvent:
    return SupervisorEvent(EventKind.READY, ModelId("m"), number, 1.7e9, data)


async def chunk(pair: Pair) -> bytes:
    size = int(await pair.reader.readline(), 16)
    return (await pair.reader.readexactly(size + 2))[:-2]


def test_the_ring_keeps_the_newest() -> None:
    ring = EventRing(FakeClock())
    for number in range(KEPT + 5):
        ring.publish(event(number))
    newest = ring.recent(3)
    assert [entry["incarnation"] for entry in newest] == [KEPT + 4, KEPT + 3, KEPT + 2]
    assert len(ring.recent(10 * KEPT)) == KEPT
    assert ring.recent(0) == []


def test_kept_events_come_first_and_new_ones_follow() -> None:
    world = ControlWorld()

    async def scenario(served: Served) -> None:
        world.events.publish(event(1, port=41000))
        pair = await served.pair()
        await pair.send("GET", "/api/events")
        status, headers = await pair.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        assert await chunk(pair) == PING
        first = (await chunk(pair)).decode().splitlines()
        assert first[:2] == ["id: 1", "event: instance_ready"]
        assert json.loads(first[2].removeprefix("data: "))["data"] == {"port": 41000}
        world.events.publish(event(2))
        assert (await chunk(pair)).startswith(b"id: 2\n")

    world.run(scenario)


@pytest.mark.parametrize(
    ("last", "expected"), [("2", b"id: 3\n"), ("99", b"id: 1\n"), ("no number", b"id: 1\n")]
)
def test_a_listener_resumes_where_it_was(last: str, expected: bytes) -> None:
    world = ControlWorld()

    async def scenario(served: Served) -> None:
        for number in range(3):
            world.events.publish(event(number))
        pair = await served.pair()
        await pair.send("GET", "/api/events", {"Last-Event-ID": last})
        await pair.head()
        await chunk(pair)
        assert (await chunk(pair)).startswith(expected)

    world.run(scenario)


def test_what_json_does_not_know_is_shown_as_text() -> None:
    world = ControlWorld()

    async def scenario(served: Served) -> None:
        world.events.publish(event(1, to=State.READY, error=ValueError("odd")))
        status = (await served.get("/api/status")).json()
        assert status["recent_events"][0]["data"] == {"to": "ready", "error": "odd"}

    world.run(scenario)


def test_a_quiet_stream_is_kept_alive() -> None:
    world = ControlWorld()

    async def scenario(served: Served) -> None:
        pair = await served.pair()
        await pair.send("GET", "/api/events")
        await pair.head()
        assert await chunk(pair) == PING
        for _ in range(2):
            world.clock.advance(PING_SECONDS)
            assert await chunk(pair) == PING

    world.run(scenario)


def test_nobody_listening_needs_no_timer() -> None:
    clock = FakeClock()
    ring = EventRing(clock)

    async def scenario() -> None:
        subscription = ring.subscribe(after=None, on_slow=lambda: None)
        assert clock.next_timer() == PING_SECONDS
        subscription.close()
        clock.advance(PING_SECONDS)
        assert clock.next_timer() is None

    asyncio.run(scenario())


def test_a_slow_listener_is_cut_off_and_others_are_not() -> None:
    async def scenario() -> None:
        ring, cut = EventRing(FakeClock()), []
        slow = ring.subscribe(after=None, on_slow=lambda: cut.append("slow"))
        quick = ring.subscribe(after=None, on_slow=lambda: cut.append("quick"))
        for number in range(PENDING + 1):
            ring.publish(event(number))
            assert (await quick.next() or b"").startswith(b"id: %d\n" % (number + 1))
        assert cut == ["slow"]
        assert await slow.next() is None
        assert ring.listeners == 1

    asyncio.run(scenario())


def test_a_listener_that_does_not_read_loses_its_connection() -> None:
    world = ControlWorld()

    async def scenario(served: Served) -> None:
        pair = await served.pair()
        await pair.send("GET", "/api/events")
        await pair.head()
        await until(lambda: world.events.listeners == 1)
        filler = "x" * 20_000
        for number in range(PENDING * 4):
            world.events.publish(event(number, filler=filler))
            if number % 16 == 0:
                await until(lambda: True)
            if not world.events.listeners:
                break
        assert world.events.listeners == 0
        await until(lambda: served.door.lines == 0)

    world.run(scenario)


def test_listeners_are_bounded() -> None:
    async def scenario() -> None:
        ring = EventRing(FakeClock())
        kept = [ring.subscribe(after=None, on_slow=lambda: None) for _ in range(MOST_LISTENERS)]
        with pytest.raises(ControlBusyError, match="api/events"):
            ring.subscribe(after=None, on_slow=lambda: None)
        kept[0].close()
        kept[0].close()
        ring.subscribe(after=None, on_slow=lambda: None)
        assert ring.listeners == MOST_LISTENERS

    asyncio.run(scenario())


def test_a_listener_that_leaves_is_forgotten() -> None:
    world = ControlWorld()

    async def scenario(served: Served) -> None:
        pair = await served.pair()
        await pair.send("GET", "/api/events")
        await pair.head()
        await until(lambda: world.events.listeners == 1)
        await pair.close()
        await until(lambda: world.events.listeners == 0)

    world.run(scenario)
