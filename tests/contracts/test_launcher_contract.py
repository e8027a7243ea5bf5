"""What every `Launcher` promises: the scripted one of the in-memory ring and the real one, told the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any, Protocol

import pytest

from registry.engine import LaunchSpec, StopPolicy
from supervisor.ports import ChildRecord, Launcher
from tests.support.eventually import eventually_async
from tests.support.fakes import FakeWorld, Script
from tests.support.trees import Recorder, Yard, clean_folder, command_spec, fake_spec, free_port

MODEL = "org/fake"


class Stage(Protocol):
    """A launcher and a way to let things happen."""

    @property
    def launcher(self) -> Launcher:
        """The one under test."""
        ...

    def play(self, script: Script) -> LaunchSpec:
        """A spec whose tree behaves like *script*."""
        ...

    async def until(self, probe: Callable[[], object]) -> None:
        """Let things happen until *probe* is true."""
        ...


class FakeStage:
    """On a fake clock."""

    def __init__(self) -> None:
        self.world = FakeWorld()
        self.launcher: Launcher = self.world

    def play(self, script: Script) -> LaunchSpec:
        """Scripts are the fake's own language."""
        spec = command_spec(["engine", "{port}"], model=MODEL)
        self.world.scripts[spec.model] = [script]
        return spec

    async def until(self, probe: Callable[[], object]) -> None:
        """A minute, in steps."""
        for _ in range(1200):
            if probe():
                return
            self.world.clock.advance(0.05)
        raise AssertionError("not within a minute")


class RealStage:
    """Real shims, scripted engines."""

    def __init__(self, yard: Yard) -> None:
        self.launcher: Launcher = yard.launcher

    def play(self, script: Script) -> LaunchSpec:
        """The same as knobs."""
        if script.spawn_fails:
            return command_spec(["/no/such/engine"], model=MODEL)
        knobs = ["--chatter", "0.02"] if script.exit_after is None else []
        knobs += [word for line in script.tail for word in ("--stderr-line", line)]
        if script.exit_after is not None:
            knobs += ["--exit-after", str(script.exit_after), "--exit-code", str(script.exit_code)]
        if script.ignores_term:
            knobs.append("--ignore-term")
        return fake_spec(*knobs, model=MODEL)

    async def until(self, probe: Callable[[], object]) -> None:
        """Real time."""
        await eventually_async(probe, within=20.0)


Story = Callable[[Stage], Coroutine[Any, Any, None]]
Theatre = Callable[[Story], None]


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.process)])
def theatre(request: pytest.FixtureRequest) -> Iterator[Theatre]:
    """Runs a story on either stage."""

    def on_fake(story: Story) -> None:
        asyncio.run(story(FakeStage()))

    if request.param == "fake":
        yield on_fake
        return
    with clean_folder() as folder:

        def on_real(story: Story) -> None:
            async def run() -> None:
                yard = Yard(folder)
                try:
                    await story(RealStage(yard))
                finally:
                    await yard.tasks.close()

            asyncio.run(run())

        yield on_real


def launch(stage: Stage, script: Script) -> Recorder:
    """A launch, of which nothing is told before the call has returned."""
    recorder = Recorder()
    spec, port = stage.play(script), free_port()
    stage.launcher.launch(spec, port=port, key="k", incarnation=7, listener=recorder)
    assert recorder.child is None
    assert recorder.failure is None
    return recorder


def test_a_tree_is_spawned_with_a_record_that_identifies_it(theatre: Theatre) -> None:
    async def story(stage: Stage) -> None:
        recorder = launch(stage, Script())
        await stage.until(lambda: recorder.child)
        assert recorder.child is not None
        record = recorder.child.record
        assert (record.model, record.incarnation, record.key) == (MODEL, 7, "k")
        assert record.pid > 0
        assert record.shim_pid not in (0, record.pid)
        recorder.child.kill()
        assert recorder.report is None
        await stage.until(lambda: recorder.report)
        assert recorder.report is not None
        assert recorder.report.code is None

    theatre(story)


@pytest.mark.parametrize("ignores_term", [False, True])
def test_a_stopped_tree_ends_even_if_it_ignores_term(theatre: Theatre, ignores_term: bool) -> None:
    async def story(stage: Stage) -> None:
        recorder = launch(stage, Script(ignores_term=ignores_term, tail=("up",)))
        await stage.until(lambda: recorder.child and "up" in recorder.child.tail)
        assert recorder.child is not None
        recorder.child.stop(StopPolicy(grace_seconds=0.3))
        recorder.child.stop(StopPolicy(grace_seconds=0.3))  # harmless
        assert recorder.report is None
        await stage.until(lambda: recorder.report)
        recorder.child.kill()  # harmless
        recorder.child.stop(StopPolicy())

    theatre(story)


def test_an_exit_of_its_own_is_reported_with_code_and_last_words(theatre: Theatre) -> None:
    async def story(stage: Stage) -> None:
        recorder = launch(stage, Script(exit_after=0.2, exit_code=3, tail=("one", "two")))
        await stage.until(lambda: recorder.report)
        assert recorder.report is not None
        assert (recorder.report.code, recorder.report.tail) == (3, ("one", "two"))
        assert not recorder.report.lost

    theatre(story)


def test_a_spawn_that_fails_says_so_and_nothing_more(theatre: Theatre) -> None:
    async def story(stage: Stage) -> None:
        recorder = launch(stage, Script(spawn_fails="cannot run /no/such/engine"))
        await stage.until(lambda: recorder.failure)
        assert "cannot run" in str(recorder.failure)
        assert recorder.child is None

    theatre(story)


def test_attaching_to_what_is_gone_fails(theatre: Theatre) -> None:
    async def story(stage: Stage) -> None:
        recorder = launch(stage, Script())
        await stage.until(lambda: recorder.child)
        assert recorder.child is not None
        gone: ChildRecord = replace(
            recorder.child.record, socket="/nowhere/s", pid=2**22 + 1, shim_pid=2**22 + 2
        )
        late = Recorder()
        stage.launcher.attach(gone, late)
        assert late.failure is None
        await stage.until(lambda: late.failure)
        recorder.child.kill()
        await stage.until(lambda: recorder.report)

    theatre(story)
