"""Readiness against the scripted engine under a real shim."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from registry.engine import Answers, HttpOk, LaunchSpec, Lists, PortOwned
from supervisor.ports import Cancellable, Child
from supervisor.readiness import HttpReadiness
from tests.support.eventually import eventually, eventually_async
from tests.support.trees import ENGINE, MARK, Yard, fake_spec, free_port, in_yard, stats

pytestmark = pytest.mark.process

ONE_TOKEN = b'{"model": "org/fake", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}'
ALL = (
    PortOwned(),
    HttpOk("/health", json_key="status", json_value="ok"),
    Lists("org/fake"),
    Answers("/v1/chat/completions", ONE_TOKEN),
)


class Verdict:
    """A `ReadinessListener` that remembers."""

    def __init__(self) -> None:
        self.is_ready = False
        self.reason: str | None = None
        self.notes: list[str] = []

    def ready(self) -> None:
        """Once."""
        assert not self.is_over
        self.is_ready = True

    def not_ready(self, reason: str, *, code: str = "") -> None:
        """Once."""
        assert not self.is_over
        self.reason = reason

    def progress(self, note: str) -> None:
        """Before the verdict."""
        assert not self.is_over
        self.notes.append(note)

    @property
    def is_over(self) -> bool:
        """Whether there is a verdict."""
        return self.is_ready or self.reason is not None


def check(yard: Yard, child: Child, spec: LaunchSpec) -> tuple[Verdict, Cancellable]:
    """Begin a check."""
    verdict = Verdict()
    readiness = HttpReadiness(tasks=yard.tasks, clock=yard.clock)
    return verdict, readiness.check(child, spec, verdict)


async def judge(yard: Yard, spec: LaunchSpec, *, port: int | None = None, key: str = "") -> Verdict:
    """The verdict on a fresh tree, which is ended again."""
    recorder, child = await yard.launch(spec, port=port, key=key)
    verdict, _ = check(yard, child, spec)
    await eventually_async(lambda: verdict.is_over, what="a verdict")
    child.kill()
    await yard.ended(recorder)
    return verdict


def test_a_slow_engine_becomes_ready_when_it_is(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        spec = fake_spec(
            "--bind-after", "0.2", "--ready-after", "1.5", "--progress", "10", "--key", "k",
            readiness=ALL,
        )  # fmt: skip
        verdict = await judge(yard, spec, key="k")
        assert verdict.is_ready
        assert verdict.notes[0].startswith("waiting for it to listen")
        assert any(note.startswith("loading weights") for note in verdict.notes)

    in_yard(folder, story)


def test_a_stranger_on_the_port_is_named(folder: Path) -> None:
    port = free_port()
    with subprocess.Popen(
        [sys.executable, str(ENGINE), "--port", str(port), "--model", "org/fake"], env={MARK: str(folder)}
    ) as stranger:

        async def story(yard: Yard) -> None:
            verdict = await judge(yard, fake_spec(readiness=ALL), port=port)
            assert verdict.reason == f"port {port} belongs to pid {stranger.pid} (python), not to us"

        try:
            eventually(lambda: stats(port))
            in_yard(folder, story)
        finally:
            stranger.kill()


def test_a_fatal_health_status_ends_the_start_with_what_was_said(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        spec = fake_spec("--health-status", "503", readiness=(HttpOk("/health", fatal_statuses=(503,)),))
        verdict = await judge(yard, spec)
        assert verdict.reason == 'GET /health says it failed: status 503: {"status": "scripted"}'

    in_yard(folder, story)


def test_an_optimistic_health_page_is_not_believed_when_an_answer_is_demanded(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        spec = fake_spec("--wrong-health", "--status", "404", "--http10", readiness=ALL[1:2] + ALL[3:])
        verdict = await judge(yard, spec)
        assert verdict.reason is not None
        assert verdict.reason.startswith("POST /v1/chat/completions was refused: status 404")

    in_yard(folder, story)


def test_a_start_without_a_sign_of_life_has_stalled(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        knobs = ("--ready-after", "999", "--stderr-line", "loading the last shard")
        verdict = await judge(yard, fake_spec(*knobs, readiness=ALL, stall_timeout=1.0))
        assert verdict.reason is not None
        assert verdict.reason.startswith("stalled for 1 s: waiting for /health (status 503")
        assert verdict.reason.endswith("its last words: loading the last shard")

    in_yard(folder, story)


@pytest.mark.parametrize("sign", [("--spin",), ("--chatter", "0.1")], ids=["CPU", "log"])
def test_signs_of_life_hold_the_stall_off_until_the_start_times_out(
    folder: Path, sign: tuple[str, ...]
) -> None:
    async def story(yard: Yard) -> None:
        knobs = ("--ready-after", "999", *sign)
        spec = fake_spec(*knobs, readiness=ALL[1:], stall_timeout=0.6, start_timeout=2.0)
        verdict = await judge(yard, spec)
        assert verdict.reason is not None
        assert verdict.reason.startswith("not ready after 2 s: waiting for /health")

    in_yard(folder, story)


def test_a_check_that_is_called_off_says_nothing(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        spec = fake_spec("--ready-after", "0.2", readiness=ALL)
        recorder, child = await yard.launch(spec)
        verdict, under_way = check(yard, child, spec)
        under_way.cancel()
        notes = list(verdict.notes)
        again, _ = check(yard, child, spec)
        await eventually_async(lambda: again.is_ready)
        assert not verdict.is_over
        assert verdict.notes == notes
        child.kill()
        await yard.ended(recorder)

    in_yard(folder, story)
