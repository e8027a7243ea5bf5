"""What every `Journal` and every `PortSource` promises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from registry.engine import HOST, ModelId
from supervisor.journal import SqliteJournal
from supervisor.port_source import LoopbackPorts
from supervisor.ports import Journal, Learned, PortSource
from tests.support.fakes import FakeWorld
from tests.support.records import RECORD


@pytest.fixture(params=["fake", "sqlite"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    """Either."""
    if request.param == "fake":
        yield FakeWorld()
        return
    real = SqliteJournal(tmp_path / "state.sqlite")
    yield real
    real.close()


def test_incarnations_only_grow_and_belong_to_a_model(journal: Journal) -> None:
    assert [journal.next_incarnation(ModelId(m)) for m in "aab"] == [1, 2, 1]


def test_children_are_remembered_until_they_end(journal: Journal) -> None:
    other = replace(RECORD, pid=12, socket="/run/2/s")
    journal.child_started(RECORD)
    journal.child_started(other)
    journal.child_ended(RECORD)
    journal.child_ended(RECORD)
    assert journal.children() == (other,)


def test_what_is_learned_is_kept_and_peaks_only_grow(journal: Journal) -> None:
    assert journal.learned("f") == Learned()
    journal.learn("f", load_seconds=4.0)
    journal.learn("f", peak_bytes={HOST: 10})
    journal.learn("f", peak_bytes={HOST: 5})
    assert journal.learned("f") == Learned(4.0, {HOST: 10})


def test_stages_are_those_of_the_last_start(journal: Journal) -> None:
    journal.learn("f", load_seconds=4.0, stages={"weights": 1.0, "serve": 3.0})
    journal.learn("f", peak_bytes={HOST: 10})
    assert journal.learned("f").stages == {"weights": 1.0, "serve": 3.0}
    journal.learn("f", load_seconds=4.0, stages={"weights": 2.0})
    assert journal.learned("f") == Learned(4.0, {HOST: 10}, {"weights": 2.0})


@pytest.fixture(params=["fake", "loopback"])
def ports(request: pytest.FixtureRequest) -> PortSource:
    """Either."""
    return FakeWorld() if request.param == "fake" else LoopbackPorts()


def test_ports_that_are_out_are_different(ports: PortSource) -> None:
    taken = [ports.take() for _ in range(20)]
    assert len(set(taken)) == 20
    for port in taken:
        ports.give_back(port)
    assert ports.take() not in taken
