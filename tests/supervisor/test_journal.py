"""The state file: what it keeps, and what happens when it cannot."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from registry.engine import HOST, DeviceId, ModelId
from supervisor.journal import SqliteJournal, average, highest
from supervisor.ports import Journal, Learned
from supervisor.records import record_from_json
from tests.support.records import RECORD

GPU = DeviceId("gpu0")


def test_what_was_written_is_there_after_closing(tmp_path: Path) -> None:
    journal: Journal
    with_file = SqliteJournal(tmp_path / "state.sqlite")
    journal = with_file
    other = replace(RECORD, socket="/run/2/s")
    assert [journal.next_incarnation(ModelId("a")) for _ in range(3)] == [1, 2, 3]
    journal.child_started(RECORD)
    journal.child_started(other)
    journal.child_ended(other)
    journal.learn("f", load_seconds=8.0, peak_bytes={HOST: 100, GPU: 5})
    journal.learn("f", load_seconds=4.0, peak_bytes={HOST: 90, GPU: 7})
    with_file.close()
    with_file.close()

    again = SqliteJournal(tmp_path / "state.sqlite")
    assert again.children() == (RECORD,)
    assert again.learned("f") == Learned(6.0, {HOST: 100, GPU: 7})
    assert again.learned("other") == Learned()
    assert again.next_incarnation(ModelId("a")) == 4
    assert again.next_incarnation(ModelId("org/m")) == 4  # an adopted child's number counts
    again.close()
    assert (tmp_path / "state.sqlite").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("spoil", ["garbage", "cut", "other schema", "nonsense rows"])
def test_a_file_that_cannot_be_read_is_moved_aside_and_a_new_one_begun(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "state.sqlite"
    first = SqliteJournal(path)
    for number in range(200):
        first.learn(f"{number:064}", load_seconds=1.0)
    first.close()
    if spoil == "garbage":
        path.write_bytes(b"not a database " * 100)
    elif spoil == "cut":
        os.truncate(path, path.stat().st_size // 2 - 100)
    else:
        with sqlite3.connect(path) as connection:
            if spoil == "other schema":
                connection.execute("PRAGMA user_version = 99")
            else:
                connection.execute("INSERT INTO learned VALUES ('x', 1.0, 'no json')")
        connection.close()
    with capture_logs() as logs:
        second = SqliteJournal(path)
    assert [entry["event"] for entry in logs] == ["journal_unreadable"]
    assert (tmp_path / "state.sqlite.corrupt-1").exists()
    assert second.next_incarnation(ModelId("m")) == 1
    second.close()
    third = SqliteJournal(path)
    assert third.next_incarnation(ModelId("m")) == 2
    third.close()


def test_a_file_that_cannot_be_written_costs_one_warning(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    with capture_logs() as logs:
        journal = SqliteJournal(folder / "state.sqlite")
        assert journal.next_incarnation(ModelId("m")) == 1
        assert journal.next_incarnation(ModelId("m")) == 2
        journal.child_started(RECORD)
        journal.close()
    assert journal.children() == (RECORD,)
    assert [entry["event"] for entry in logs] == ["journal_not_written"]


def test_writing_resumes_when_the_file_can_be_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    journal = SqliteJournal(folder / "state.sqlite")
    folder.mkdir()
    SqliteJournal(folder / "state.sqlite").close()
    journal.learn("f", load_seconds=2.0)
    journal.close()
    again = SqliteJournal(folder / "state.sqlite")
    assert again.learned("f") == Learned(2.0, {})
    again.close()


def test_averages_and_peaks() -> None:
    assert average(None, 4.0) == 4.0
    assert average(4.0, None) == 4.0
    assert average(4.0, 8.0) == 6.0
    assert highest({HOST: 1}, {HOST: 3, GPU: 2}) == {HOST: 3, GPU: 2}


def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    first = SqliteJournal(path)
    first.learn("f", load_seconds=8.0, peak_bytes={HOST: 100})
    first.close()
    with sqlite3.connect(path) as connection:
        connection.executescript("DROP TABLE stages; PRAGMA user_version = 1;")
    connection.close()
    again = SqliteJournal(path)
    assert again.learned("f") == Learned(8.0, {HOST: 100})
    again.learn("f", stages={"weights": 2.0})
    again.close()
    last = SqliteJournal(path)
    assert last.learned("f") == Learned(8.0, {HOST: 100}, {"weights": 2.0})
    last.close()


def test_records_survive_other_versions() -> None:
    data = RECORD.to_json()
    assert record_from_json(data | {"newer": 1}) == RECORD
    assert record_from_json(data | {"pid": "x"}) is None
    del data["port"]
    assert record_from_json(data) is None
    assert record_from_json({}) is None
