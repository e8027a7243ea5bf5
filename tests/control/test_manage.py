"""Management: load, unload, logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from registry.errors import EngineMissingError
from router.control.follow import LOG_BYTES, read_tail
from supervisor.errors import ModelFailedError, ModelTooLargeError
from supervisor.lifecycle import State
from tests.support.control import Answer, ControlWorld, Served, endpoint_model, local_model, until
from tests.support.fake_fleet import Call, instance_view


@pytest.fixture
def world() -> ControlWorld:
    made = ControlWorld()
    made.add(local_model("org/m", aliases=("m",)))
    return made


def ask(world: ControlWorld, method: str, path: str) -> Answer:
    async def scenario(served: Served) -> Answer:
        return await (served.get if method == "GET" else served.post)(path)

    return world.run(scenario)


def test_load_answers_when_it_is_ready(world: ControlWorld) -> None:
    answer = ask(world, "POST", "/api/models/org/m/load")
    assert (answer.status, answer.json()["state"], answer.json()["id"]) == (200, "ready", "org/m")
    assert world.fleet.calls == [Call("load", "org/m")]


@pytest.mark.parametrize("spelling", ["org%2Fm", "m"])
def test_ids_may_be_encoded_or_aliases(world: ControlWorld, spelling: str) -> None:
    assert ask(world, "POST", f"/api/models/{spelling}/load").json()["id"] == "org/m"


@pytest.mark.parametrize("path", ["/api/models/org/m", "/v1/models/org/m"])
def test_one_model_comes_with_every_fact(world: ControlWorld, path: str) -> None:
    answer = ask(world, "GET", path).json()
    assert (answer["id"], answer["display_name"]) == ("org/m", "m")
    assert set(answer["facts"]["license"]) == {"value", "source", "rank"}
    assert answer["registry_id"].endswith("/org_m")


def test_load_passes_the_timeout_on(world: ControlWorld) -> None:
    ask(world, "POST", "/api/models/m/load?timeout=2m")
    assert world.fleet.calls == [Call("load", "org/m", timeout=120.0)]


@pytest.mark.parametrize("query", ["timeout=soon", "timeout=0", "timeout=inf", "wait=maybe", "retry=2"])
def test_a_query_that_cannot_be_understood_does_nothing(world: ControlWorld, query: str) -> None:
    answer = ask(world, "POST", f"/api/models/m/load?{query}")
    assert (answer.status, answer.code()) == (400, "bad_query")
    assert world.fleet.calls == []


def test_a_failed_load_carries_the_cause_and_the_time(world: ControlWorld) -> None:
    world.fleet.fails["org/m"] = ModelFailedError("org/m exited 1: CUDA out of memory", retry_after=4.2)
    answer = ask(world, "POST", "/api/models/m/load")
    assert (answer.status, answer.code(), answer.headers["retry-after"]) == (503, "model_failed", "5")
    assert "CUDA out of memory" in answer.json()["error"]["message"]


def test_a_load_that_can_never_work_says_so_to_sdks(world: ControlWorld) -> None:
    world.fleet.fails["org/m"] = ModelTooLargeError("needs 70 GiB of 24 GiB")
    answer = ask(world, "POST", "/api/models/m/load")
    assert (answer.status, answer.headers["x-should-retry"]) == (507, "false")


def test_load_without_waiting_is_accepted_once(world: ControlWorld) -> None:
    world.fleet.slow.add("org/m")

    async def scenario(served: Served) -> None:
        for _ in range(3):
            assert (await served.post("/api/models/m/load?wait=0")).status == 202
        await until(lambda: world.fleet.waits == 1)
        assert [call.verb for call in world.fleet.calls] == ["load"]
        world.fleet.finish("org/m")
        await until(lambda: world.fleet.waits == 0)
        assert (await served.post("/api/models/m/load?wait=0")).json()["state"] == "ready"

    world.run(scenario)


def test_an_unattended_load_that_fails_crashes_nothing(world: ControlWorld) -> None:
    world.fleet.fails["org/m"] = ModelFailedError("no")

    async def scenario(served: Served) -> None:
        assert (await served.post("/api/models/m/load?wait=0")).status == 202
        await until(lambda: len(world.fleet.calls) == 1)

    world.run(scenario)


@pytest.mark.parametrize(
    ("state", "calls"),
    [
        (State.FAILED, ["unload", "load"]),
        (State.BACKOFF, ["unload", "load"]),
        (State.READY, ["load"]),
        (State.STOPPED, ["load"]),
    ],
)
def test_retry_clears_a_crash_loop_and_nothing_else(
    world: ControlWorld, state: State, calls: list[str]
) -> None:
    world.fleet.set("org/m", state)
    ask(world, "POST", "/api/models/m/load?retry=1")
    assert [call.verb for call in world.fleet.calls] == calls


@pytest.mark.parametrize(
    ("query", "force"), [("", False), ("?force=1", True), ("?force", True), ("?force=0", False)]
)
def test_unload_is_forced_only_when_asked(world: ControlWorld, query: str, force: bool) -> None:
    answer = ask(world, "POST", f"/api/models/m/unload{query}")
    assert (answer.status, answer.json()["state"]) == (200, "stopped")
    assert world.fleet.calls == [Call("unload", "org/m", force=force)]


def test_unload_without_waiting_is_accepted(world: ControlWorld) -> None:
    async def scenario(served: Served) -> None:
        assert (await served.post("/api/models/m/unload?wait=0&force=1")).status == 202
        await until(lambda: world.fleet.calls == [Call("unload", "org/m", force=True)])

    world.run(scenario)


def test_an_unknown_model_is_404(world: ControlWorld) -> None:
    assert ask(world, "POST", "/api/models/nope/load").code() == "model_not_found"


def test_what_runs_elsewhere_is_not_ours_to_stop(world: ControlWorld) -> None:
    world.add(endpoint_model("remote"))
    answer = ask(world, "POST", "/api/models/remote/unload")
    assert (answer.status, answer.code()) == (409, "not_ours")
    assert "http://localhost:8000" in answer.json()["error"]["message"]


def test_a_model_without_an_engine_names_the_command(world: ControlWorld) -> None:
    world.add(local_model("x", problem=EngineMissingError("run `modelyard engine install mlx-lm`")))
    answer = ask(world, "POST", "/api/models/x/load")
    assert (answer.status, answer.code()) == (503, "engine_not_installed")
    assert "modelyard engine install mlx-lm" in answer.json()["error"]["message"]


def test_every_model_is_listed_with_its_instance(world: ControlWorld) -> None:
    world.add(endpoint_model("remote"))
    world.fleet.set("org/m", State.READY)
    models = ask(world, "GET", "/api/models").json()["models"]
    assert [(entry["id"], entry["state"]) for entry in models] == [("org/m", "ready"), ("remote", "endpoint")]


@pytest.mark.parametrize(("verb", "pinned"), [("pin", True), ("unpin", False)])
def test_a_pin_is_set_and_taken_off_by_name(world: ControlWorld, verb: str, pinned: bool) -> None:
    world.fleet.put(replace(instance_view("org/m", State.READY), pinned=not pinned))
    answer = ask(world, "POST", f"/api/models/org%2Fm/{verb}")
    assert (answer.status, answer.json()["pinned"]) == (200, pinned)
    again = ask(world, "POST", f"/api/models/m/{verb}")
    assert (again.status, again.json()["pinned"]) == (200, pinned)


@pytest.mark.parametrize("verb", ["pin", "unpin", "load", "unload"])
def test_what_runs_elsewhere_can_be_told_nothing(world: ControlWorld, verb: str) -> None:
    world.add(endpoint_model("remote"))
    assert ask(world, "POST", f"/api/models/remote/{verb}").code() == "not_ours"


def test_what_an_operator_asked_for_is_among_the_events(world: ControlWorld) -> None:
    for wish in ("load?wait=0", "load?retry=1", "pin", "unpin", "unload", "unload?force=1"):
        ask(world, "POST", f"/api/models/m/{wish}")
    told = [(event["kind"], event["model"], event["data"]["wish"]) for event in world.events.recent(9)]
    wishes = ["force", "unload", "unpin", "pin", "retry", "load"]
    assert told == [("operator_asked", "org/m", wish) for wish in wishes]


# -- logs


def with_log(world: ControlWorld, path: Path) -> None:
    world.fleet.put(replace(instance_view("org/m", State.READY), log=str(path)))


def test_the_end_of_a_log_is_text(world: ControlWorld, tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.write_bytes(b"one\ntwo\nthr\xffee\n")
    with_log(world, path)
    answer = ask(world, "GET", "/api/models/m/logs?tail=2")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.body.decode() == "two\nthr�ee\n"
    as_json = ask(world, "GET", "/api/models/m/logs?tail=1&format=json").json()
    assert as_json["lines"] == ["thr�ee"]


@pytest.mark.parametrize("tail", ["0", "-1", "x", "10001", "9" * 5000])
def test_a_senseless_tail_is_refused(world: ControlWorld, tmp_path: Path, tail: str) -> None:
    with_log(world, tmp_path)
    assert ask(world, "GET", f"/api/models/m/logs?tail={tail}").code() == "bad_query"


def test_no_log_yet_and_log_gone_are_404(world: ControlWorld, tmp_path: Path) -> None:
    assert ask(world, "GET", "/api/models/m/logs").code() == "no_log"
    with_log(world, tmp_path / "gone")
    assert ask(world, "GET", "/api/models/m/logs").code() == "no_log"


def _file(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "log"
        path.write_bytes(data)
        return path

    return write


def test_a_huge_log_is_read_from_its_end_and_starts_with_a_whole_line(tmp_path: Path) -> None:
    line = b"x" * 99 + b"\n"
    text = read_tail(_file(tmp_path)(b"first\n" + line * 5000), lines=100_000)
    assert len(text) <= LOG_BYTES
    assert set(text.splitlines()) == {"x" * 99}


def test_short_and_empty_logs_are_whole(tmp_path: Path) -> None:
    write = _file(tmp_path)
    assert read_tail(write(b""), lines=5) == ""
    assert read_tail(write(b"no newline"), lines=5) == "no newline"
    assert read_tail(write(b"a\nb\nc"), lines=2) == "b\nc"
