"""The in-process way to the control app: bounded, attributed, cleaned up."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from structlog.testing import capture_logs

from router.control.app import build_app
from router.control.door import Door
from router.errors import ControlBusyError
from router.ports import ControlDoor
from supervisor.lifecycle import State
from supervisor.tasks import TaskScope
from tests.support.control import ControlWorld, Served, local_model, until


def test_the_caller_belongs_to_the_pair_and_not_to_a_header() -> None:
    world = ControlWorld()
    world.add(local_model("m"))

    async def scenario(served: Served) -> None:
        pair = await served.pair(client="10.1.2.3")
        with capture_logs() as logs:
            await pair.ask(
                "POST", "/api/models/m/load", {"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6"}
            )
        assert [entry["client"] for entry in logs if entry["event"] == "model_load_asked"] == ["10.1.2.3"]

    world.run(scenario)


def test_it_is_the_same_on_the_loop_of_production() -> None:
    world = ControlWorld(loop_factory=uvloop.new_event_loop)
    world.add(local_model("m"))

    async def scenario(served: Served) -> None:
        pair = await served.pair(client="10.1.2.3")
        assert (await pair.ask("POST", "/api/models/m/load")).json()["state"] == State.READY
        await pair.close()
        await until(lambda: served.door.lines == 0)

    world.run(scenario)


def test_places_are_bounded_and_come_back() -> None:
    async def scenario(served: Served) -> None:
        door = served.door
        first, second = await served.pair(), await served.pair()
        with pytest.raises(ControlBusyError, match="2 connections"):
            door.open("c")
        assert repr(door) == "<Door lines=2/2>"
        await first.ask("GET", "/health")
        await first.close()
        await until(lambda: door.lines == 1)
        third = await served.pair()
        assert (await third.ask("GET", "/health")).status == 200
        await second.close()

    ControlWorld(most_lines=2).run(scenario)


def test_an_end_dropped_before_a_word_gives_its_place_back() -> None:
    async def scenario(served: Served) -> None:
        served.door.open("c").close()
        await until(lambda: served.door.lines == 0)

    ControlWorld().run(scenario)


def test_the_fronts_end_does_not_block() -> None:
    async def scenario(served: Served) -> None:
        end = served.door.open("c")
        assert end.getblocking() is False
        end.close()

    ControlWorld().run(scenario)


def test_a_door_that_is_not_open_refuses_politely() -> None:
    async def scenario() -> None:
        tasks = TaskScope()
        door: ControlDoor = Door(build_app(ControlWorld().deps()), spawn=tasks.spawn)
        with pytest.raises(ControlBusyError):
            door.open("c")

    asyncio.run(scenario())


def test_a_caller_that_leaves_gives_up_its_wait_and_not_the_load() -> None:
    world = ControlWorld()
    world.add(local_model("slow"))
    world.fleet.slow.add("slow")

    async def scenario(served: Served) -> None:
        pair = await served.pair()
        await pair.send("POST", "/api/models/slow/load")
        await until(lambda: world.fleet.waits == 1)
        await pair.close()
        await until(lambda: world.fleet.waits == 0)
        assert (await served.get("/api/models/slow")).json()["state"] == State.STARTING

    world.run(scenario)


def test_long_paths_are_an_answer_and_not_a_broken_connection() -> None:
    async def scenario(served: Served) -> None:
        answer = await served.get("/" + "x" * 20_000)
        assert (answer.status, answer.code()) == (404, "unknown_path")

    ControlWorld().run(scenario)


def test_closing_the_door_ends_what_still_waits() -> None:
    world = ControlWorld()
    world.add(local_model("slow"))
    world.fleet.slow.add("slow")

    async def scenario(served: Served) -> None:
        pair = await served.pair()
        await pair.ask("POST", "/api/models/slow/load?wait=0")
        await pair.send("GET", "/api/events")
        assert (await pair.head())[0] == 200
        await served.door.close()
        assert b"\r\n0\r\n\r\n" in await pair.reader.read()

    world.run(scenario)
