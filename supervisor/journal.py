"""The state file: one SQLite database, read once, kept in memory, written by one thread.

What is lost with it is comfort, never correctness: living shims are found by their sockets. So a file that
cannot be read is moved aside, and one that cannot be written costs one warning.
"""

from __future__ import annotations

import json
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from registry.engine import DeviceId, ModelId
from supervisor.ports import ChildRecord, Learned
from supervisor.records import record_from_json

log = structlog.get_logger("modelyard.journal")

SCHEMA_VERSION = 2
SCHEMA = """
CREATE TABLE children (socket TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE learned (fingerprint TEXT PRIMARY KEY, load_seconds REAL, peak_bytes TEXT NOT NULL);
CREATE TABLE incarnations (model TEXT PRIMARY KEY, last INTEGER NOT NULL);
CREATE TABLE usage (model TEXT PRIMARY KEY, requests INTEGER NOT NULL, last_used REAL NOT NULL);
CREATE TABLE stages (fingerprint TEXT PRIMARY KEY, began TEXT NOT NULL);
"""
"""`usage` is not written yet; it is here so that this version's files will do for the one that does."""
MIGRATIONS = {1: "CREATE TABLE stages (fingerprint TEXT PRIMARY KEY, began TEXT NOT NULL);"}
"""From each earlier version to the next one."""
QUEUE = 10_000
"""Writes that wait for the disk: a start writes five."""

Write = Callable[[sqlite3.Connection], object]


@dataclass(slots=True)
class _Memory:
    """All there is to know."""

    children: dict[str, ChildRecord] = field(default_factory=dict)
    learned: dict[str, Learned] = field(default_factory=dict)
    incarnations: dict[ModelId, int] = field(default_factory=dict)


class UnreadableJournalError(Exception):
    """The file is no journal of ours; the text says why."""


class SqliteJournal:
    """`Journal` over one file. Opening and closing block; everything else answers from memory."""

    def __init__(self, path: Path) -> None:
        """Open or begin the file. Never fails: at worst this run's knowledge is not kept."""
        self._path = path
        self._warned = False
        self._memory = self._open()
        self._queue: queue.Queue[Write | None] = queue.Queue(QUEUE)
        self._thread = threading.Thread(target=self._write_all, name="journal", daemon=True)
        self._thread.start()

    # -- Journal

    def next_incarnation(self, model: ModelId) -> int:
        """One more than any incarnation of *model* there ever was in this state directory."""
        number = self._memory.incarnations.get(model, 0) + 1
        self._memory.incarnations[model] = number
        self._put("INSERT OR REPLACE INTO incarnations VALUES (?, ?)", model, number)
        return number

    def child_started(self, record: ChildRecord) -> None:
        """Remember a tree."""
        self._memory.children[record.socket] = record
        self._put(
            "INSERT OR REPLACE INTO children VALUES (?, ?)", record.socket, json.dumps(record.to_json())
        )
        if record.incarnation > self._memory.incarnations.get(
            record.model, 0
        ):  # adopted, and the file is new
            self._memory.incarnations[record.model] = record.incarnation
            self._put("INSERT OR REPLACE INTO incarnations VALUES (?, ?)", record.model, record.incarnation)

    def child_ended(self, record: ChildRecord) -> None:
        """Forget it."""
        if self._memory.children.pop(record.socket, None) is not None:
            self._put("DELETE FROM children WHERE socket = ?", record.socket)

    def children(self) -> tuple[ChildRecord, ...]:
        """Trees that were remembered and not forgotten."""
        return tuple(self._memory.children.values())

    def learned(self, fingerprint: str) -> Learned:
        """What is known of that spec."""
        return self._memory.learned.get(fingerprint, Learned())

    def learn(
        self,
        fingerprint: str,
        *,
        load_seconds: float | None = None,
        peak_bytes: Mapping[DeviceId, int] | None = None,
        stages: Mapping[str, float] | None = None,
    ) -> None:
        """Load times are averaged (the newest weighs half), peaks only grow, the last stages stay."""
        old = self.learned(fingerprint)
        new = Learned(
            average(old.load_seconds, load_seconds),
            highest(old.peak_bytes, peak_bytes or {}),
            old.stages if stages is None else dict(stages),
        )
        if new == old:
            return
        self._memory.learned[fingerprint] = new
        self._put(
            "INSERT OR REPLACE INTO learned VALUES (?, ?, ?)",
            fingerprint,
            new.load_seconds,
            json.dumps(dict(new.peak_bytes)),
        )
        if new.stages != old.stages:
            self._put(
                "INSERT OR REPLACE INTO stages VALUES (?, ?)", fingerprint, json.dumps(dict(new.stages))
            )

    def close(self) -> None:
        """Write what waits and close the file; the second call does nothing. Blocks."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(10.0)

    # -- the file

    def _open(self) -> _Memory:
        """What the file holds; a file that cannot be read is moved aside and a new one begun."""
        try:
            return self._read()
        except (UnreadableJournalError, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.OperationalError):
                self._warn(error)  # a read-only or full disk is no corruption: the file stays
                return _Memory()
            aside = self._move_aside()
            log.warning("journal_unreadable", path=str(self._path), moved_to=str(aside), error=str(error))
        except OSError as error:
            self._warn(error)
            return _Memory()
        try:
            return self._read()
        except (UnreadableJournalError, sqlite3.Error, OSError) as error:
            self._warn(error)
            return _Memory()

    def _connect(self) -> sqlite3.Connection:
        # Made by us with its mode, because SQLite would make it readable; WAL and SHM files inherit the mode.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _read(self) -> _Memory:
        """Everything, after a check. Raises UnreadableJournalError, sqlite3.Error or OSError."""
        connection = self._connect()
        try:
            self._check(connection)
            memory = _Memory()
            for socket, text in connection.execute("SELECT socket, record FROM children"):
                record = record_from_json(json.loads(text))
                if record is not None:
                    memory.children[socket] = record
            for fingerprint, seconds, peaks in connection.execute("SELECT * FROM learned"):
                peak_bytes = {DeviceId(device): int(size) for device, size in json.loads(peaks).items()}
                memory.learned[fingerprint] = Learned(seconds, peak_bytes)
            for fingerprint, began in connection.execute("SELECT * FROM stages"):
                known = memory.learned.get(fingerprint, Learned())
                stages = {str(stage): float(at) for stage, at in json.loads(began).items()}
                memory.learned[fingerprint] = replace(known, stages=stages)
            for model, last in connection.execute("SELECT * FROM incarnations"):
                memory.incarnations[ModelId(model)] = last
        except (ValueError, TypeError, AttributeError) as error:
            raise UnreadableJournalError(f"rows that make no sense: {error}") from error
        else:
            return memory
        finally:
            connection.close()

    def _check(self, connection: sqlite3.Connection) -> None:
        """Raise unless this is our schema, whole; an empty file gets it."""
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise UnreadableJournalError(found)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            return
        while version in MIGRATIONS:
            connection.executescript(
                f"BEGIN; {MIGRATIONS[version]} PRAGMA user_version = {version + 1}; COMMIT;"
            )
            version += 1
        if version != SCHEMA_VERSION:
            raise UnreadableJournalError(f"schema version {version}; this is version {SCHEMA_VERSION}")

    def _move_aside(self) -> Path:
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.corrupt-{number}")).exists():
            number += 1
        for suffix in ("-wal", "-shm"):
            beside = self._path.with_name(self._path.name + suffix)
            if beside.exists():
                beside.replace(aside.with_name(aside.name + suffix))
        self._path.replace(aside)
        return aside

    # -- writing

    def _put(self, statement: str, *values: object) -> None:
        try:
            self._queue.put_nowait(lambda connection: connection.execute(statement, values))
        except queue.Full:
            self._warn(OSError("the disk does not keep up"))

    def _write_all(self) -> None:
        """The thread: one transaction per batch, so that a burst costs one sync."""
        connection: sqlite3.Connection | None = None
        while True:
            write = self._queue.get()
            batch: list[Write] = []
            while write is not None:
                batch.append(write)
                if self._queue.empty():
                    break
                write = self._queue.get()
            if batch:
                connection = self._write(connection, batch)
            if write is None:
                break
        if connection is not None:
            connection.close()

    def _write(self, connection: sqlite3.Connection | None, batch: list[Write]) -> sqlite3.Connection | None:
        """Write a batch; a failure is warned of once, and the next batch tries a new connection."""
        try:
            connection = connection or self._connect()
            connection.execute("BEGIN IMMEDIATE")
            for write in batch:
                write(connection)
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._warn(error)
            if connection is not None:
                connection.close()
            return None
        return connection

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "journal_not_written",
                path=str(self._path),
                error=str(error),
                remedy="what is learned in this run is forgotten; make room or fix the permissions",
            )


def average(old: float | None, new: float | None) -> float | None:
    """Half of each, so that three starts forget an outlier."""
    if old is None or new is None:
        return old if new is None else new
    return (old + new) / 2


def highest(old: Mapping[DeviceId, int], new: Mapping[DeviceId, int]) -> dict[DeviceId, int]:
    """Per device, the larger."""
    return {device: max(old.get(device, 0), new.get(device, 0)) for device in old.keys() | new.keys()}
