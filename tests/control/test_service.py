"""What a service manager hears and hands over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from router.service import Notifier, inherited_listeners


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "notify"))
    listener.settimeout(10)
    return listener


def test_states_and_status_arrive_as_systemd_wants_them(manager: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": str(manager.getsockname()), "PATH": "/bin"}
    notifier = Notifier.from_environment(environ)
    assert environ == {"PATH": "/bin"}
    notifier.ready("serving 3 models\non 127.0.0.1")
    notifier.status("loading qwen")
    notifier.extend_timeout(2.5)
    notifier.stopping()
    heard = [manager.recv(1000).decode() for _ in range(4)]
    manager.close()
    assert heard == [
        "READY=1\nSTATUS=serving 3 models on 127.0.0.1",
        "STATUS=loading qwen",
        "EXTEND_TIMEOUT_USEC=2500000",
        "STOPPING=1",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="abstract addresses are Linux's")
def test_an_abstract_address_is_understood() -> None:
    name = f"modelyard-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        listener.settimeout(10)
        Notifier("@" + name).ready()
        assert listener.recv(100) == b"READY=1"


def test_without_a_manager_nothing_happens() -> None:
    Notifier.from_environment({}).ready()


def test_a_manager_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    Notifier(str(tmp_path / "nobody")).ready()


# -- listeners


def test_no_variables_no_listeners() -> None:
    assert inherited_listeners({}, pid=1) == ()


def test_variables_meant_for_another_process_are_removed_and_ignored() -> None:
    environ = {"LISTEN_PID": "999", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http", "PATH": "/bin"}
    assert inherited_listeners(environ, pid=1) == ()
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("count", ["", "x", "-1", "17", "1e3"])
def test_a_damaged_count_is_an_error_that_says_where_to_look(count: str) -> None:
    with pytest.raises(ValueError, match=r"\.socket unit"):
        inherited_listeners({"LISTEN_PID": "1", "LISTEN_FDS": count}, pid=1)


INHERIT = """
import os, socket, sys
sys.path.insert(0, sys.argv[1])
from router.service import inherited_listeners
os.environ["LISTEN_PID"] = str(os.getpid())
(listener,) = inherited_listeners(os.environ, pid=os.getpid())
assert listener.fileno() == 3 and not os.get_inheritable(3) and "LISTEN_FDS" not in os.environ
print(listener.getsockname()[1])
"""


def test_a_listener_of_the_manager_is_taken_over() -> None:
    root = Path(__file__).resolve().parents[2]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def place() -> None:
            os.dup2(listener.fileno(), 3)

        done = subprocess.run(
            [sys.executable, "-c", INHERIT, str(root)],
            env={**os.environ, "LISTEN_FDS": "1"},
            preexec_fn=place,
            pass_fds=(3,),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) == listener.getsockname()[1]


def test_a_descriptor_that_is_no_socket_is_said() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", INHERIT, str(root)],
        env={**os.environ, "LISTEN_FDS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert "ValueError: LISTEN_FDS=1 but descriptor 3 is no socket" in done.stderr
