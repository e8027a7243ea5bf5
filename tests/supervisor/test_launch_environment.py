"""What the launcher decides before there is a process."""

from __future__ import annotations

from registry.engine import ModelId
from supervisor.shim_client import fill_stop, inherited, log_name
from tests.support.records import RECORD


def test_children_inherit_the_machine_and_not_the_daemon() -> None:
    machine = {
        "HOME": "/h",
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/l",
        "HF_HOME": "/hf",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    daemon = {
        "PYTHONPATH": "/x", "PYTHONHOME": "/x", "VIRTUAL_ENV": "/x", "LISTEN_FDS": "1", "NOTIFY_SOCKET": "/n",
        "MODELYARD_KEY": "secret",
    }  # fmt: skip
    assert inherited(machine | daemon) == machine


def test_log_names_are_safe_readable_and_different() -> None:
    names = [
        log_name(ModelId(name)) for name in ("qwen3", "a/b", "a--b", "../../etc/passwd", "a b", "x" * 300)
    ]
    assert names[0] == "qwen3.log"
    assert names[1].startswith("a--b-")
    assert names[2] == "a--b.log"
    assert len(set(names)) == len(names)
    assert not any("/" in name or name.startswith(".") or len(name) > 120 for name in names)


def test_cmd_stop_is_filled_and_other_braces_survive() -> None:
    command = ["docker", "stop", "{model}-{port}", "--format={{json}}", "{pid}"]
    assert fill_stop(command, RECORD) == ["docker", "stop", "org/m-20001", "--format={{json}}", "11"]
