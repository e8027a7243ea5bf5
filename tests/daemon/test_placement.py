"""Ring 4: where real trees are started on a machine that is said to have GPUs."""

from __future__ import annotations

import json
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.eventually import eventually
from tests.support.running_daemon import FAKE_ENGINE, ROOT, RunningDaemon, scripted
from tests.support.yard import YARD_SOURCE

pytestmark = pytest.mark.process

GIB = 2**30
VLLM = f"""\
#!/bin/sh
# `vllm serve PATH …`, as far as a start goes: all that it was told is kept, then a scripted engine serves.
printf '%s\\n' "$@" > "$RECORD.$CUDA_VISIBLE_DEVICES"
port=
while [ $# -gt 0 ]; do
  case "$1" in
    --port) port=$2 ;;
    --served-model-name) name=$2 ;;
  esac
  shift
done
exec {sys.executable} {FAKE_ENGINE} --port "$port" --model "$name"
"""


@dataclass
class OnGpus(RunningDaemon):
    """On a machine that is said to have GPUs."""

    def program(self) -> list[str]:
        """What stands before the command's name."""
        return [sys.executable, str(ROOT / "tests" / "support" / "pretended_gpus.py")]


def gpus(*gib: int) -> dict[str, str]:
    return {"PRETENDED_GPUS": ",".join(str(size * GIB) for size in gib)}


def sees(daemon: RunningDaemon, name: str) -> str:
    """The GPUs that the engine's process sees."""
    words = Path(f"/proc/{daemon.model(name)['pid']}/environ").read_text().split("\0")
    return next(word.partition("=")[2] for word in words if word.startswith("CUDA_VISIBLE_DEVICES="))


def reserved(daemon: RunningDaemon) -> dict[str, int]:
    """GiB set aside on each GPU."""
    devices: list[dict[str, Any]] = daemon.status()["devices"]
    return {d["id"]: d["reserved_bytes"] // GIB for d in devices if d["id"] != "host"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_models_are_spread_over_the_gpus_and_the_least_recently_used_makes_room(tmp_path: Path) -> None:
    anywhere = {"memory": {"gpu": "15GiB", "host": "1GiB"}}
    models = {name: scripted(**anywhere) for name in "abc"}
    models["large"] = scripted(memory={"gpu": "30GiB"})
    budgets = {"gpu": {"gpu0": "20GiB", "gpu1": "20GiB"}}
    settings = {"models": models, "memory": budgets, "adopt_within": "60s"}
    with OnGpus(tmp_path, settings, env=gpus(24, 24)) as daemon:
        assert daemon.chat("a").status_code == 200
        assert daemon.chat("b").status_code == 200
        assert [sees(daemon, name) for name in "ab"] == ["0", "1"]
        assert reserved(daemon) == {"gpu0": 15, "gpu1": 15}
        assert daemon.chat("b").status_code == 200
        assert daemon.chat("c").status_code == 200
        assert [daemon.model(name)["state"] for name in "abc"] == ["stopped", "ready", "ready"]
        assert sees(daemon, "c") == "0"
        refused = daemon.chat("large")
        assert refused.status_code in (503, 507)
        assert "needs 30.0 GiB on gpu0, whose budget is 20.0 GiB" in refused.json()["error"]["message"]
        # A daemon that dies leaves them, and the next one finds them where they are.
        kept = {name: daemon.model(name)["pid"] for name in "bc"}
        daemon.kill()
        daemon.start()
        eventually(lambda: daemon.model("c")["state"] == daemon.model("b")["state"] == "ready")
        assert {name: daemon.model(name)["pid"] for name in "bc"} == kept
        assert reserved(daemon) == {"gpu0": 15, "gpu1": 15}


def test_who_waits_in_vain_is_told_who_still_holds_the_memory_and_who_pins(tmp_path: Path) -> None:
    use = tmp_path / "use.json"
    settings = {
        "models": {name: scripted(memory={"gpu": "15GiB"}) for name in "ab"},
        "admission": {"free_timeout": "1s", "request_timeout": "8s"},
    }
    env = {**gpus(24), "PRETENDED_USE": str(use)}
    with OnGpus(tmp_path, settings, env=env) as daemon:
        assert daemon.chat("a").status_code == 200
        pin = f"{daemon.url}/api/models/a/pin"
        httpx.post(pin).raise_for_status()
        refused = daemon.chat("b")
        assert refused.elapsed.total_seconds() < 2
        assert "where a (15.0 GiB) is pinned" in refused.json()["error"]["message"]
        httpx.post(pin.replace("pin", "unpin")).raise_for_status()
        pid = daemon.model("a")["pid"]
        use.write_text(json.dumps({"0": {str(pid): 15 * GIB}}))
        eventually(lambda: daemon.model("a")["memory"]["measured_bytes"] >= 15 * GIB, within=20)
        # Its tree is stopped for b, and the driver goes on to name one of its processes.
        refused = daemon.chat("b")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "wait_timeout"
        said = f"memory that pid {pid} (15.0 GiB on gpu0), left over from a, still holds"
        assert said in refused.json()["error"]["message"]
        not_ready = httpx.get(f"{daemon.url}/ready")
        assert not_ready.status_code == 503
        assert said in not_ready.json()["error"]["message"]
        use.unlink()
        eventually(lambda: daemon.chat("b").status_code == 200, within=30)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_vllm_is_started_with_the_flags_of_the_devices_it_goes_on(tmp_path: Path) -> None:
    program = tmp_path / "engine" / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.write_text(VLLM)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    yard = {"source": YARD_SOURCE, "engine": "vllm", "env": {"RECORD": str(tmp_path / "told")}}
    models = {
        "one": yard,
        "two": yard,
        "both": {**yard, "tensor_parallel_size": 2},
    }
    settings = {
        "models": models,
        "engines": {"vllm": {"path": str(tmp_path / "engine")}},
        "memory": {"gpu": {"gpu1": "20GiB"}},
    }
    with OnGpus(tmp_path, settings, env=gpus(24, 24)) as daemon:

        def told(devices: str) -> list[str]:
            return Path(tmp_path / f"told.{devices}").read_text().splitlines()

        assert daemon.chat("one").status_code == 200
        assert daemon.chat("two").status_code == 200
        assert {sees(daemon, "one"), sees(daemon, "two")} == {"0", "1"}
        assert "--gpu-memory-utilization" not in told("0")
        words = told("1")
        share = words[words.index("--gpu-memory-utilization") + 1]
        assert share == "0.833333"
        assert 20 * GIB - 24_000_000 < int(24 * GIB * float(share)) <= 20 * GIB
        assert daemon.chat("both").status_code == 200
        assert [daemon.model(name)["state"] for name in ("one", "two")] == ["stopped", "stopped"]
        words = told("0,1")
        assert words[words.index("--tensor-parallel-size") + 1] == "2"
        assert words[words.index("--gpu-memory-utilization") + 1] == "0.833333"
        assert sees(daemon, "both") == "0,1"
