"""The shim and its launcher, with real processes."""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from registry.engine import StopPolicy
from supervisor.ports import Child
from tests.support.eventually import eventually_async
from tests.support.trees import (
    ENGINE,
    Yard,
    command_spec,
    fake_spec,
    in_yard,
    is_alive,
    mode,
    stats,
    text,
    words_of,
)

pytestmark = pytest.mark.process

REPOSITORY = Path(__file__).resolve().parents[2]


def test_stopping_ends_the_whole_tree_setsid_grandchild_included(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        recorder, child = await yard.launch(fake_spec("--setsid-child", "--fork-child"))
        seen = await eventually_async(lambda: stats(child.record.port))
        assert len(seen["children"]) == 2
        child.stop(StopPolicy(grace_seconds=0.5))
        report = await yard.ended(recorder)
        assert (report.code, report.signal, report.lost) == (None, signal.SIGTERM, False)
        assert not any(is_alive(pid) for pid in (child.record.pid, *seen["children"]))

    in_yard(folder, story)


def test_an_engine_that_ignores_term_is_killed_after_the_grace(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        recorder, child = await yard.launch(fake_spec("--ignore-term", "--chatter", "0.05"))
        await yard.said(child, "still here")
        child.stop(StopPolicy(grace_seconds=0.3))
        assert (await yard.ended(recorder)).signal == signal.SIGKILL

    in_yard(folder, story)


def test_a_lost_first_term_is_repeated(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        recorder, child = await yard.launch(fake_spec("--ignore-first-term", "--chatter", "0.05"))
        await yard.said(child, "still here")
        child.stop(StopPolicy(grace_seconds=30.0, repeat_term_seconds=0.2))
        assert (await yard.ended(recorder)).signal == signal.SIGTERM

    in_yard(folder, story)


def test_killing_does_not_wait_for_the_grace(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        recorder, child = await yard.launch(fake_spec("--ignore-term", "--setsid-child"))
        await eventually_async(lambda: stats(child.record.port))
        child.stop(StopPolicy(grace_seconds=60.0))
        child.kill()
        assert (await yard.ended(recorder)).signal == signal.SIGKILL

    in_yard(folder, story)


def test_an_exit_is_reported_with_its_code_and_last_words(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        knobs = (
            "--exit-at-start",
            "--exit-code",
            "7",
            "--stderr-line",
            "first",
            "--stderr-line",
            "CUDA is out",
        )
        recorder, _ = await yard.launch(fake_spec(*knobs))
        report = await yard.ended(recorder)
        assert (report.code, report.signal, report.tail) == (7, None, ("first", "CUDA is out"))

    in_yard(folder, story)


def test_an_engine_that_leaves_children_behind_has_not_ended_before_they_have(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        recorder, child = await yard.launch(fake_spec("--fork-child", "--setsid-child"))
        seen = await eventually_async(lambda: stats(child.record.port))
        os.kill(child.record.pid, signal.SIGKILL)
        report = await yard.ended(recorder)
        assert report.signal == signal.SIGKILL
        assert not any(is_alive(pid) for pid in seen["children"])

    in_yard(folder, story)


def test_a_command_that_cannot_be_run_is_a_failed_spawn_that_names_it(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        recorder = yard.begin(command_spec(["/no/such/engine", "--port", "{port}"]))
        reason = await eventually_async(lambda: recorder.failure)
        assert "cannot run /no/such/engine" in str(reason)
        assert "No such file" in str(reason)
        await eventually_async(lambda: not list(yard.run_dir.iterdir()))

    in_yard(folder, story)


def test_a_shim_that_is_killed_takes_its_tree_along_and_the_loss_is_reported(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        recorder, child = await yard.launch(fake_spec("--setsid-child", "--fork-child"))
        seen = await eventually_async(lambda: stats(child.record.port))
        os.kill(child.record.shim_pid, signal.SIGKILL)
        report = await yard.ended(recorder)
        assert report.lost
        assert report.code is None
        assert not any(is_alive(pid) for pid in (child.record.pid, *seen["children"]))

    in_yard(folder, story)


def test_term_to_the_shim_itself_stops_the_tree(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        recorder, child = await yard.launch(fake_spec("--setsid-child", stop=StopPolicy(grace_seconds=0.3)))
        await eventually_async(lambda: stats(child.record.port))
        os.kill(child.record.shim_pid, signal.SIGTERM)
        assert (await yard.ended(recorder)).signal == signal.SIGTERM

    in_yard(folder, story)


def test_nothing_of_ours_leaks_into_the_engine(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        # -S: our site-packages may know the checkout (an editable install); an engine's never do.
        knobs = ["--port", "{port}", "--try-import", "registry", "--chatter", "0.05"]
        recorder, child = await yard.launch(command_spec([sys.executable, "-S", str(ENGINE), *knobs]))
        await eventually_async(lambda: recorder.report or child.tail)
        assert child.tail[-1] == "still here"
        names = {entry.partition(b"=")[0] for entry in words_of(child.record.pid, "environ")}
        assert b"HOME" in names
        assert not names & {b"PYTHONPATH", b"NOTIFY_SOCKET", b"MODELYARD_CONFIG"}
        child.kill()
        await yard.ended(recorder)

    leaky = dict(os.environ) | {
        "PYTHONPATH": str(REPOSITORY),
        "NOTIFY_SOCKET": "/run/x",
        "MODELYARD_CONFIG": "/etc/x",
        "HOME": "/tmp",
    }
    in_yard(folder, story, environ=leaky)


def test_the_working_directory_is_private_holds_the_links_and_goes_with_the_tree(folder: Path) -> None:
    target = folder / "checkpoint"
    target.mkdir()

    async def story(yard: Yard) -> None:
        code = "import os, time; print(os.getcwd(), os.readlink('models/q')); time.sleep(60)"
        spec = command_spec([sys.executable, "-u", "-c", code], links=(("models/q", str(target)),))
        recorder, child = await yard.launch(spec)
        work = Path(child.record.socket).parent / "work"
        await yard.said(child, f"{work} {target}")
        assert mode(work.parent) == 0o700
        assert mode(child.record.socket) == 0o600
        child.stop(StopPolicy())
        await yard.ended(recorder)
        assert not work.exists()
        assert target.exists()

    in_yard(folder, story)


def test_the_key_reaches_the_engine_and_no_command_line_or_log(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        spec = fake_spec("--chatter", "0.05", env={"FAKE_ENGINE_KEY": "{key}"})
        recorder, child = await yard.launch(spec, key="s3cr3t")
        await yard.said(child, "still here")
        assert b"FAKE_ENGINE_KEY=s3cr3t" in words_of(child.record.pid, "environ")
        for pid in (child.record.pid, child.record.shim_pid):
            assert not any(b"s3cr3t" in word for word in words_of(pid, "cmdline"))
        assert "s3cr3t" not in text(child.record.log)
        assert mode(child.record.log) == 0o600
        child.kill()
        await yard.ended(recorder)

    in_yard(folder, story)


def test_cmd_stop_runs_first_with_its_places_filled(folder: Path) -> None:
    said = folder / "said"

    async def story(yard: Yard) -> None:
        command = ("/bin/sh", "-c", f"echo {{model}} {{port}} {{pid}} > {said}; kill -INT {{pid}}")
        recorder, child = await yard.launch(command_spec(["/bin/sleep", "60"], model="org/m"))
        child.stop(StopPolicy(grace_seconds=20.0, command=command))
        report = await yard.ended(recorder)
        assert said.read_text().split() == ["org/m", str(child.record.port), str(child.record.pid)]
        assert report.signal == signal.SIGINT

    in_yard(folder, story)


def test_logs_are_rotated_and_the_tail_is_bounded(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        recorder, child = await yard.launch(fake_spec("--noise", "1500", "--chatter", "0.05"))
        await yard.said(child, "still here")
        assert len(child.tail) <= 201
        child.stop(StopPolicy())
        await yard.ended(recorder)
        files = sorted(Path(child.record.log).parent.iterdir())
        assert [file.suffix for file in files] == [".log", ".1"]
        assert all(0 < file.stat().st_size <= 40_000 for file in files)

    in_yard(folder, story, log_bytes=40_000)


def test_a_progress_bar_is_one_line_of_the_tail(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        recorder, child = await yard.launch(fake_spec("--progress", "20", "--ready-after", "0.6"))
        await yard.said(child, "loading weights")
        await yard.said(child, "loading weights 100%")
        assert sum("loading weights" in line for line in child.tail) == 1
        child.stop(StopPolicy())
        await yard.ended(recorder)

    in_yard(folder, story)


def test_a_full_disk_costs_log_lines_and_nothing_else(folder: Path) -> None:
    (folder / "logs").mkdir()
    (folder / "logs" / "full.log").symlink_to("/dev/full")

    async def story(yard: Yard) -> None:
        recorder, child = await yard.launch(fake_spec("--chatter", "0.02", model="full"))
        assert child.record.log.endswith("/full.log")
        await eventually_async(lambda: len(child.tail) > 5)
        child.stop(StopPolicy())
        assert (await yard.ended(recorder)).signal == signal.SIGTERM

    in_yard(folder, story)


def talk(child: Child, data: bytes) -> list[dict[str, Any]]:
    """Say something to a shim as a stranger; its answers until it hangs up or is silent for a while."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(1.0)
        sock.connect(child.record.socket)
        answer = b""
        try:
            sock.sendall(data)
            while not answer.endswith(b"\n") or answer.count(b"\n") < data.count(b"\n"):
                piece = sock.recv(65536)
                if not piece:
                    break
                answer += piece
        except OSError:
            pass
        return [json.loads(line) for line in answer.splitlines()]


def test_nonsense_on_the_socket_does_not_disturb_the_tree(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        recorder, child = await yard.launch(fake_spec("--stderr-line", "hello"))
        await yard.said(child, "hello")
        bad = talk(child, b'not json\n[]\n{"op": "dance"}\n{"op": "tail", "n": "x"}\n{"op": "collect"}\n')
        assert len(bad) == 5
        assert all("error" in answer for answer in bad)
        assert talk(child, b"x" * 200_000) == []
        status, tail = talk(child, b'{"op": "status"}\n{"op": "tail", "n": 1}\n')
        assert status["record"] == child.record.to_json()
        assert (status["phase"], status["exit"], status["attached"]) == ("running", None, 1)
        assert status["last_output_age"] < 60
        assert tail["lines"] == ["hello"]
        child.kill()
        await yard.ended(recorder)

    in_yard(folder, story)


SHARED_MEMORY = """
import signal, time
from multiprocessing import resource_tracker, shared_memory
signal.signal(signal.SIGTERM, signal.SIG_IGN)
block = shared_memory.SharedMemory(create=True, size=4096)
print("shm", block.name, resource_tracker._resource_tracker._pid, flush=True)
time.sleep(60)
"""


def test_a_killed_engine_leaks_no_shared_memory(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        recorder, child = await yard.launch(command_spec([sys.executable, "-u", "-c", SHARED_MEMORY]))
        await yard.said(child, "shm")
        block = Path("/dev/shm") / child.tail[-1].split()[1]
        assert block.exists()
        child.stop(StopPolicy(grace_seconds=0.2))
        assert (await yard.ended(recorder)).signal == signal.SIGKILL
        assert not block.exists()

    in_yard(folder, story)


@pytest.mark.parametrize("used", [False, True])
def test_shared_memory_whose_tracker_was_killed_is_removed_unless_somebody_uses_it(
    folder: Path, used: bool
) -> None:
    async def story(yard: Yard) -> None:
        recorder, child = await yard.launch(command_spec([sys.executable, "-u", "-c", SHARED_MEMORY]))
        await yard.said(child, "shm")
        _, name, tracker = child.tail[-1].split()
        os.kill(int(tracker), signal.SIGKILL)
        block = Path("/dev/shm") / name
        with block.open("r+b") as file, mmap.mmap(file.fileno(), 0) if used else nullcontext():
            child.stop(StopPolicy(grace_seconds=0.2))
            await yard.ended(recorder)
            assert block.exists() == used
        block.unlink(missing_ok=True)

    in_yard(folder, story)
