"""Following a log: what comes is passed on, through rotations, until somebody leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from router.control.events import PING, PING_SECONDS
from router.control.follow import GAP, LATER, LINE_BYTES, LOG_BYTES, SOON, LogReader, Mark
from router.control.streams import MOST_STREAMS, Turn
from supervisor.lifecycle import State
from supervisor.shim.output import LogFile
from tests.support.control import ControlWorld, Pair, Served, local_model, until
from tests.support.eventually import eventually_async
from tests.support.fake_fleet import instance_view
from tests.support.fakes import FakeClock

# -- the reader, against the writer that it follows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.log"


@pytest.fixture
def reader(path: Path) -> Iterator[LogReader]:
    made = LogReader(path)
    yield made
    made.close()


def test_first_the_end_of_what_is_there_then_what_comes(path: Path, reader: LogReader) -> None:
    log = LogFile(str(path), 10_000)
    for word in ("one", "two", "three"):
        log.write(word)
    assert reader.begin(lines=2) == ["two", "three"]
    assert reader.more() == []
    log.write("four")
    assert reader.more() == ["four"]
    assert reader.more() == []


def test_a_rotation_loses_and_repeats_nothing(path: Path, reader: LogReader) -> None:
    log = LogFile(str(path), 100)
    written = [f"line {number}" for number in range(60)]
    log.write("begin")
    seen = reader.begin(lines=10)
    for number, line in enumerate(written):
        log.write(line)
        if number % 5 == 0:
            seen += reader.more()
    while more := reader.more():
        seen += more
    assert path.with_name("m.log.1").exists(), "nothing was rotated: the test proves nothing"
    assert seen == ["begin", *written]


def test_two_rotations_between_two_looks_are_confessed(path: Path, reader: LogReader) -> None:
    log = LogFile(str(path), 100)
    log.write("first")
    assert reader.begin(lines=10) == ["first"]
    for number in range(60):
        log.write(f"line {number}")
    seen: list[str] = []
    while more := reader.more():
        seen += more
    assert seen.count(GAP) == 1
    assert seen[-1] == "line 59"
    numbers = [int(line.split()[1]) for line in seen if line.startswith("line ")]
    assert numbers == sorted(set(numbers))


def test_half_a_line_waits_for_its_end(path: Path, reader: LogReader) -> None:
    path.write_bytes(b"whole\nha")
    assert reader.begin(lines=5) == ["whole"]
    with path.open("ab") as log:
        log.write(b"lf\r\nand\xff")
    assert reader.more() == ["half"]
    with path.open("ab") as log:
        log.write(b"\n")
    assert reader.more() == ["and�"]


def test_a_line_without_an_end_comes_in_pieces(path: Path, reader: LogReader) -> None:
    path.write_bytes(b"")
    reader.begin(lines=1)
    path.write_bytes(b"x" * (LINE_BYTES + 10))
    assert reader.more() == ["x" * LINE_BYTES]


def test_a_shortened_log_is_begun_anew(path: Path, reader: LogReader) -> None:
    path.write_bytes(b"a long first line\n")
    reader.begin(lines=5)
    path.write_bytes(b"new\n")
    assert [*reader.more(), *reader.more()] == ["new"]


def test_a_log_that_goes_away_is_waited_for(path: Path, reader: LogReader) -> None:
    path.write_bytes(b"one\n")
    reader.begin(lines=5)
    path.unlink()
    assert reader.more() == []
    path.write_bytes(b"two\n")
    assert reader.more() == [GAP, "two"]


def test_no_log_is_an_error(reader: LogReader) -> None:
    with pytest.raises(FileNotFoundError):
        reader.begin(lines=5)


def test_one_look_reads_a_bounded_piece(path: Path, reader: LogReader) -> None:
    path.write_bytes(b"begin\n")
    reader.begin(lines=5)
    with path.open("ab") as log:
        log.write((b"y" * 99 + b"\n") * (2 * LOG_BYTES // 100))
    first = reader.more()
    assert len(first) * 100 <= LOG_BYTES
    assert len(first) + len(reader.more()) + len(reader.more()) == 2 * LOG_BYTES // 100


@pytest.mark.parametrize("rotated", [False, True])
def test_a_follower_that_comes_back_goes_on_where_it_was(path: Path, rotated: bool) -> None:
    log = LogFile(str(path), 60)
    for word in ("one", "two"):
        log.write(word)
    first = LogReader(path)
    assert first.begin(lines=9) == ["one", "two"]
    mark = Mark.parse(str(first.mark))
    first.close()
    log.write("three")
    if rotated:
        log.write("x" * 50)
    second = LogReader(path)
    seen = second.begin(lines=1, after=mark) + second.more() + second.more()
    second.close()
    assert seen == (["three", "x" * 50] if rotated else ["three"])


def test_a_place_that_is_gone_is_answered_with_the_end(path: Path, reader: LogReader) -> None:
    path.write_bytes(b"one\ntwo\n")
    assert reader.begin(lines=1, after=Mark(1, 10**9)) == ["two"]


@pytest.mark.parametrize("text", ["", "x", "1", "-", "1-x", "1-2-3", "9" * 60 + "-1"])
def test_what_is_no_mark_is_none(text: str) -> None:
    assert Mark.parse(text) is None


def test_a_reader_closed_in_the_middle_opens_nothing_any_more(path: Path, reader: LogReader) -> None:
    path.write_bytes(b"one\n")
    reader.begin(lines=1)
    reader.close()
    assert reader.more() == []


# -- the answer


@pytest.fixture
def world(path: Path) -> ControlWorld:
    made = ControlWorld()
    made.add(local_model("m"))
    path.write_bytes(b"one\ntwo\n")
    made.fleet.put(replace(instance_view("m", State.READY), log=str(path)))
    return made


async def chunk(pair: Pair) -> bytes:
    size = int(await pair.reader.readline(), 16)
    return (await pair.reader.readexactly(size + 2))[:-2]


async def following(served: Served, query: str, **headers: str) -> Pair:
    pair = await served.pair()
    await pair.send(
        "GET", f"/api/models/m/logs?{query}", {k.replace("_", "-"): v for k, v in headers.items()}
    )
    status, _ = await pair.head()
    assert status == 200
    return pair


async def pausing(world: ControlWorld) -> None:
    """Until the follower has read, which it does in a thread, and waits for its next look."""
    await eventually_async(lambda: world.clock.next_timer() is not None)


def test_text_lines_come_as_they_are_written(world: ControlWorld, path: Path) -> None:
    async def scenario(served: Served) -> None:
        pair = await following(served, "follow=1&tail=1")
        assert await chunk(pair) == b"two\n"
        with path.open("ab") as log:
            log.write(b"three\n")
        await pausing(world)
        world.clock.advance(SOON)
        assert await chunk(pair) == b"three\n"

    world.run(scenario)


def test_events_can_be_resumed(world: ControlWorld, path: Path) -> None:
    async def scenario(served: Served) -> None:
        pair = await following(served, "tail=1", Accept="text/event-stream")
        name, data, *_ = (await chunk(pair)).decode().splitlines()
        assert json.loads(data.removeprefix("data: ")) == {"lines": ["two"]}
        await pair.close()
        with path.open("ab") as log:
            log.write(b"three\n")
        again = await following(served, "tail=1&format=events", Last_Event_ID=name.removeprefix("id: "))
        assert b'{"lines":["three"]}' in await chunk(again)

    world.run(scenario)


def test_a_quiet_log_is_looked_at_less_often_and_kept_alive(world: ControlWorld) -> None:
    async def scenario(served: Served) -> None:
        pair = await following(served, "format=events&tail=1")
        await chunk(pair)
        pauses: list[float] = []
        while sum(pauses) < PING_SECONDS:
            await pausing(world)
            pause = world.clock.next_timer()
            assert pause is not None
            pauses.append(pause)
            world.clock.advance(pause)
        assert pauses[:3] == [SOON, 2 * SOON, LATER]
        assert set(pauses[3:]) == {LATER}
        assert await chunk(pair) == PING

    world.run(scenario)


def test_it_ends_when_the_daemon_stops(world: ControlWorld) -> None:
    async def scenario(served: Served) -> None:
        pair = await following(served, "follow=1&tail=1")
        assert await chunk(pair) == b"two\n"
        served.door.end_streams()
        assert await chunk(pair) == b""  # the last chunk: the answer is complete
        late = await served.get("/api/models/m/logs?follow=1")
        assert (late.status, late.code()) == (503, "control_busy")

    world.run(scenario)


def test_it_ends_when_the_caller_leaves(world: ControlWorld) -> None:
    async def scenario(served: Served) -> None:
        pair = await following(served, "follow=1&tail=1")
        await chunk(pair)
        await pausing(world)
        await pair.close()
        await until(lambda: served.door.lines == 0)
        await until(lambda: world.clock.next_timer() is None)

    world.run(scenario)


@pytest.mark.parametrize("query", ["follow=maybe", "format=xml", "follow=1&format=json", "follow=1&tail=0"])
def test_what_makes_no_sense_is_refused(world: ControlWorld, query: str) -> None:
    async def scenario(served: Served) -> None:
        assert (await served.get(f"/api/models/m/logs?{query}")).code() == "bad_query"

    world.run(scenario)


def test_without_a_log_there_is_nothing_to_follow(world: ControlWorld, path: Path) -> None:
    path.unlink()

    async def scenario(served: Served) -> None:
        assert (await served.get("/api/models/m/logs?follow=1")).code() == "no_log"

    world.run(scenario)


def test_followers_are_bounded(world: ControlWorld) -> None:
    async def scenario(served: Served) -> None:
        for _ in range(MOST_STREAMS):
            await following(served, "follow=1&tail=1")
        assert (await served.get("/api/models/m/logs?follow=1")).code() == "control_busy"
        assert (await served.get("/api/status/stream")).code() == "control_busy"
        assert (await served.get("/api/status")).status == 200

    world.run(scenario)


# -- pauses


def test_a_pause_is_cut_short_by_the_end_and_none_follows() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        turn = Turn(clock)
        waiting = asyncio.ensure_future(turn.pause(5))  # noqa: TID251  the scenario is its owner
        await until(lambda: clock.next_timer() is not None)
        turn.end()
        assert await waiting is False
        assert clock.next_timer() is None
        assert await turn.pause(5) is False

    asyncio.run(scenario())
