"""What a service manager hears while the daemon lives."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from router.service import (
    LAUNCHD_LABEL,
    STATUS_SECONDS,
    Heartbeat,
    Notifier,
    runs_as_service,
    summary_of,
    watchdog_seconds,
)
from supervisor.lifecycle import State
from supervisor.view import FleetView, InstanceView
from tests.support.fake_fleet import instance_view
from tests.support.fakes import FakeClock


class Manager:
    """The service manager's end."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.notifier = Notifier(str(path))

    def heard(self) -> list[str]:
        """Everything said since the last call."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


def always() -> bool:
    """A scheduler that decides."""
    return True


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.socket.close()


def test_the_watchdog_is_pinged_at_half_its_time_and_the_status_only_when_it_changes(
    manager: Manager,
) -> None:
    clock, line = FakeClock(), ["1 ready"]
    heartbeat = Heartbeat(manager.notifier, clock, watchdog=4.0, summary=lambda: line[0], is_served=always)
    heartbeat.start()
    assert manager.heard() == ["WATCHDOG=1", "STATUS=1 ready"]
    clock.advance(1.9)
    assert manager.heard() == []
    clock.advance(0.2)
    assert manager.heard() == ["WATCHDOG=1"]
    line[0] = "2 ready"
    clock.advance(2)
    assert manager.heard() == ["WATCHDOG=1", "STATUS=2 ready"]
    heartbeat.close()
    clock.advance(60)
    assert manager.heard() == []


def test_without_a_watchdog_only_the_status_is_kept_fresh(manager: Manager) -> None:
    clock, line = FakeClock(), ["a"]
    heartbeat = Heartbeat(manager.notifier, clock, watchdog=None, summary=lambda: line[0], is_served=always)
    heartbeat.start()
    line[0] = "b"
    clock.advance(STATUS_SECONDS)
    assert manager.heard() == ["STATUS=a", "STATUS=b"]


def test_a_state_that_cannot_be_read_silences_the_watchdog_until_it_can(manager: Manager) -> None:
    clock, broken = FakeClock(), [False]

    def summary() -> str:
        if broken[0]:
            raise RuntimeError("the fleet is in two minds")
        return "fine"

    heartbeat = Heartbeat(manager.notifier, clock, watchdog=2.0, summary=summary, is_served=always)
    heartbeat.start()
    manager.heard()
    broken[0] = True
    clock.advance(10)
    assert manager.heard() == []
    broken[0] = False
    clock.advance(1)
    assert manager.heard() == ["WATCHDOG=1"]


def test_a_scheduler_that_has_stopped_deciding_silences_the_watchdog_until_it_decides(
    manager: Manager,
) -> None:
    clock, served = FakeClock(), [True]
    heartbeat = Heartbeat(
        manager.notifier, clock, watchdog=2.0, summary=lambda: "fine", is_served=lambda: served[0]
    )
    heartbeat.start()
    assert manager.heard() == ["WATCHDOG=1", "STATUS=fine"]
    served[0] = False
    clock.advance(10)
    assert manager.heard() == ["STATUS=the scheduler has stopped deciding; fine"]
    served[0] = True
    clock.advance(1)
    assert manager.heard() == ["WATCHDOG=1", "STATUS=fine"]


def test_a_loop_that_does_not_go_round_says_nothing(manager: Manager) -> None:
    clock = FakeClock()
    Heartbeat(manager.notifier, clock, watchdog=1.0, summary=lambda: "x", is_served=always).start()
    manager.heard()
    # Nobody fires timers: that is what a blocked loop looks like.
    assert clock.next_timer() == 0.5
    assert manager.heard() == []


def test_nobody_listens_no_timer() -> None:
    clock = FakeClock()
    Heartbeat(Notifier(None), clock, watchdog=1.0, summary=lambda: "x", is_served=always).start()
    assert clock.next_timer() is None


# -- the variables


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdogs_variables_are_taken_out(given: dict[str, str], seconds: float | None) -> None:
    environ = {**given, "PATH": "/bin"}
    assert watchdog_seconds(environ, pid=7) == seconds
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("environ", "is_service"),
    [
        ({"NOTIFY_SOCKET": "/run/x"}, True),
        ({"SYSTEMD_EXEC_PID": "7"}, True),
        ({"XPC_SERVICE_NAME": LAUNCHD_LABEL}, True),
        # What a shell in a desktop's terminal has inherited:
        ({"INVOCATION_ID": "0123", "SYSTEMD_EXEC_PID": "6"}, False),
        ({"XPC_SERVICE_NAME": "0"}, False),
        ({}, False),
    ],
)
def test_a_shell_in_a_terminal_is_no_service(environ: dict[str, str], is_service: bool) -> None:
    assert runs_as_service(environ, pid=7) is is_service


# -- the line


def fleet(*views: InstanceView, stopping: bool = False) -> FleetView:
    return FleetView(1.7e9, views, (), 1, stopping)


def test_the_line_says_what_an_operator_wants_to_know_first() -> None:
    busy = replace(instance_view("a", State.READY), leases=2)
    views = (busy, instance_view("b", State.STARTING), instance_view("c", State.FAILED), instance_view("d"))
    line = summary_of(fleet(*views), models=9, listen="127.0.0.1:8080")
    assert line == "1 ready, 1 starting, 1 failed of 9 models; 2 in flight, 1 waiting; on 127.0.0.1:8080"


def test_the_line_of_a_daemon_that_stops_counts_down() -> None:
    views = (instance_view("a", State.STOPPING), instance_view("d"))
    assert summary_of(fleet(*views, stopping=True), models=9, listen="x") == "stopping, 1 models left"


def test_the_line_of_an_idle_daemon() -> None:
    line = summary_of(fleet(instance_view("a")), models=1, listen="x")
    assert line == "0 ready of 1 models; 0 in flight, 1 waiting; on x"
