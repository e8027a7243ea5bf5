"""Measuring memory: parsers on recorded text, the probe on scripted sources."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from config.budgets import budget, gpu_budget
from config.schema import MemoryConfig
from registry.engine import HOST, DeviceId
from supervisor import memory
from supervisor.memory import Cgroup, HostMemory, HostReader, Sources
from supervisor.nvidia import Gpu, GpuReader
from supervisor.ports import ChildRecord, DeviceUsage, Leftover, MemoryProbe
from supervisor.processes import ProcessRow
from tests.support.records import RECORD

GIB = 2**30
GPU = DeviceId("gpu0")

ROLLUP = """\
55a1c0a00000-7ffd4a1fe000 ---p 00000000 00:00 0                          [rollup]
Rss:             2048000 kB
Pss:             1024000 kB
Pss_Dirty:        900000 kB
Shared_Clean:    1024000 kB
"""


def test_parsers() -> None:
    assert memory.parse_pss(ROLLUP) == 1024000 * 1024
    assert memory.parse_pss("Rss: 1 kB\n") is None
    assert memory.parse_rss("Name:\tx\nVmRSS:\t     812 kB\n") == 812 * 1024
    assert memory.parse_rss("Name:\tkthreadd\n") == 0
    assert memory.parse_cgroup("0::/system.slice/modelyard.service\n") == "/system.slice/modelyard.service"
    assert memory.parse_cgroup("12:memory:/x\n1:name=systemd:/\n") is None
    assert memory.parse_limit("max\n") is None
    assert memory.parse_limit("17179869184\n") == 16 * GIB


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("auto", 75), (0.5, 50), (40, 40), (1000, 100)],
    ids=["auto", "share", "bytes", "too much"],
)
def test_budgets(setting: float | str, expected: int) -> None:
    assert budget(setting, 100, 0.75) == expected


def test_each_gpu_may_have_a_budget_of_its_own() -> None:
    config = MemoryConfig.model_validate({"gpu": {"gpu0": "20GiB", "gpu1": "50%"}})
    found = [gpu_budget(config, f"gpu{number}", 24 * GIB) for number in range(3)]
    assert found == [20 * GIB, 12 * GIB, int(24 * GIB * 0.92)]
    assert gpu_budget(MemoryConfig.model_validate({"gpu": "6GiB"}), "gpu7", 24 * GIB) == 6 * GIB


def test_the_tightest_limit_above_us_counts(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/user.slice/app.service\n")
    root = tmp_path / "fs"
    inner = root / "user.slice" / "app.service"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    assert memory.tightest_cgroup(root, own) is None
    (root / "user.slice" / "memory.max").write_text(f"{8 * GIB}\n")
    (inner / "memory.max").write_text(f"{16 * GIB}\n")
    assert memory.tightest_cgroup(root, own) == Cgroup(root / "user.slice", 8 * GIB)
    assert memory.tightest_cgroup(root, tmp_path / "absent") is None


def test_under_a_limit_the_machine_is_as_large_as_the_limit(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text(f"{GIB // 2}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {GIB // 4}\n")
    reader = HostReader(Cgroup(tmp_path, GIB // 2 + 4096))
    assert reader.total() == GIB // 2 + 4096
    usage = reader.usage()
    assert usage.free_bytes <= GIB // 4 + 4096
    assert usage.used_bytes + usage.free_bytes == reader.total()


class ScriptedHost(HostReader):
    """RAM that the test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.used = 4 * GIB

    def total(self) -> int:
        """16 GiB."""
        return 16 * GIB

    def usage(self) -> DeviceUsage:
        """As set."""
        return DeviceUsage(self.used, 16 * GIB - self.used)


class ScriptedGpus:
    """One GPU with two processes on it."""

    def __init__(self) -> None:
        self.closed = False
        self.by_pid = {21: 20 * GIB, 99: 10 * GIB}

    def read(self) -> tuple[Gpu, ...]:
        """It."""
        return (Gpu(GPU, "H200", 100 * GIB, 30 * GIB, 70 * GIB, dict(self.by_pid)),)

    def close(self) -> None:
        """Noted."""
        self.closed = True


def scripted(host: ScriptedHost, gpus: ScriptedGpus, tree: dict[str, list[int]]) -> Sources:
    """Sources where every process takes 1 GiB."""

    def rows(record: ChildRecord) -> list[ProcessRow]:
        return [ProcessRow(pid, 1, 1, 1, "S", "x", 1.0, 0.0) for pid in tree.get(record.socket, [])]

    def open_gpus() -> GpuReader:
        return gpus

    return Sources(host=host, gpus=open_gpus, tree=rows, process=lambda pid: GIB)


def test_devices_budgets_usage_and_trees() -> None:
    host, gpus, tree = ScriptedHost(), ScriptedGpus(), {RECORD.socket: [20, 21]}
    real = HostMemory(MemoryConfig.model_validate({"host": "50%"}), sources=scripted(host, gpus, tree))
    probe: MemoryProbe = real
    assert [(d.id, d.total_bytes, d.budget_bytes) for d in probe.devices()] == [
        (HOST, 16 * GIB, 8 * GIB),
        (GPU, 100 * GIB, int(92 * GIB)),
    ]
    assert probe.usage() == {HOST: DeviceUsage(4 * GIB, 12 * GIB), GPU: DeviceUsage(30 * GIB, 70 * GIB)}
    assert probe.of_tree(RECORD) == {}
    probe.watch(RECORD)
    probe.watch(replace(RECORD, socket="/run/gone/s"))
    host.used = 6 * GIB
    real.measure()
    assert probe.usage()[HOST].used_bytes == 6 * GIB
    assert probe.of_tree(RECORD) == {HOST: 2 * GIB, GPU: 20 * GIB}
    probe.unwatch(RECORD)
    assert probe.of_tree(RECORD) == {}
    real.close()
    assert gpus.closed


def test_what_a_tree_that_is_gone_still_holds_is_told_until_it_is_back() -> None:
    gpus, tree = ScriptedGpus(), {RECORD.socket: [20, 21]}
    real = HostMemory(MemoryConfig(), sources=scripted(ScriptedHost(), gpus, tree))
    real.watch(RECORD)
    real.measure()
    assert real.leftovers(RECORD) == (), "it lives"
    real.unwatch(RECORD)
    assert real.leftovers(RECORD) is None, "not measured since"
    real.measure()
    assert real.leftovers(RECORD) == (Leftover(GPU, 21, 20 * GIB),)
    del gpus.by_pid[21]
    real.measure()
    assert real.leftovers(RECORD) == ()
    never_on_a_gpu = replace(RECORD, socket="/run/b/s")
    real.watch(never_on_a_gpu)
    real.measure()
    real.unwatch(never_on_a_gpu)
    assert real.leftovers(never_on_a_gpu) == ()
    real.close()


def test_this_machine_can_be_measured() -> None:
    probe = HostMemory(MemoryConfig())
    probe.start()
    usage = probe.usage()[HOST]
    assert 0 < usage.free_bytes < probe.devices()[0].total_bytes
    assert memory.process_bytes(2**22 + 1) == 0
    probe.close()
