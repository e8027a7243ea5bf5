"""Reading /proc and ps, on recorded text."""

from __future__ import annotations

import os

from supervisor import processes
from supervisor.shim import processes as shim_processes

STAT = (
    "4242 (VLLM::Worker (0) x) S 4200 4200 4199 0 -1 4194304 52301 0 12 0 1500 250 0 0 20 0 55 0 8123456 "
    "1073741824 25600 18446744073709551615 1 1 0 0 0 0 0 16781312 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)
PS_ON_MACOS = """\
    1     0     1 Ss   Thu Nov 20 08:01:02 2026
  501     1   501 Ss   Thu Nov 20 08:02:00 2026
 7001   501  7001 S+   Thu Nov 20 09:10:11 2026
 7002  7001  7001 R    Thu Nov 20 09:10:12 2026
 7003  7001  7003 Z    Thu Nov 20 09:10:13 2026
not a row
"""


def test_a_name_with_brackets_and_spaces_does_not_shift_the_fields() -> None:
    row = processes.parse_stat(STAT)
    assert row is not None
    assert (row.pid, row.name, row.ppid, row.pgid, row.sid) == (4242, "VLLM::Worker (0) x", 4200, 4200, 4199)
    assert row.started == 8123456
    assert row.cpu_seconds == 1750 / os.sysconf("SC_CLK_TCK")
    shim_row = shim_processes.parse_stat(STAT)
    assert shim_row is not None
    assert (shim_row.pid, shim_row.ppid, shim_row.started) == (4242, 4200, "8123456")


def test_text_that_is_no_stat_is_no_process() -> None:
    assert processes.parse_stat("") is None
    assert processes.parse_stat("12 (cut") is None
    assert shim_processes.parse_stat("12 (cut) S 1") is None


def test_ps_rows_are_read_and_noise_is_not() -> None:
    rows = shim_processes.parse_ps(PS_ON_MACOS)
    assert [(row.pid, row.ppid, row.pgid, row.state) for row in rows][2:] == [
        (7001, 501, 7001, "S"),
        (7002, 7001, 7001, "R"),
        (7003, 7001, 7003, "Z"),
    ]
    assert rows[2].started == "Thu Nov 20 09:10:11 2026"


def test_descendants_are_found_through_dead_parents_and_zombies_do_not_count() -> None:
    rows = shim_processes.parse_ps(PS_ON_MACOS)
    assert sorted(row.pid for row in shim_processes.descendants(rows, 501, 7001)) == [7001, 7002]

    def row(pid: int, ppid: int, state: str = "S") -> processes.ProcessRow:
        return processes.ProcessRow(pid, ppid, pid, pid, state, "x", 1.0, 0.0)

    table = {r.pid: r for r in (row(1, 0), row(5, 1), row(6, 5, "Z"), row(7, 6), row(8, 1))}
    assert sorted(r.pid for r in processes.descendants(table, 5)) == [7]


def test_io_counts_calls_and_page_faults() -> None:
    text = "rchar: 100\nwchar: 20\nsyscr: 9\nsyscw: 9\nread_bytes: 4096\nwrite_bytes: 1\n"
    assert processes.parse_io(text) == 4216


def test_a_reused_pid_is_another_process() -> None:
    me = processes.read(os.getpid())
    assert me is not None
    assert processes.is_alive(me.pid, me.started)
    assert not processes.is_alive(me.pid, me.started + 10)
