"""Who listens on a loopback port: reading the kernel's socket tables.

Only the listener that would take a connection to 127.0.0.1 counts. Functions that read the system may take
milliseconds; callers on the loop's thread use a thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from supervisor import processes
from supervisor.ports import ChildRecord

KNOCK_TIMEOUT = 1.0
"""Loopback answers at once; only a full accept queue does not, and that is not served either."""
LISTEN = "0A"
LOOPBACK_RANK = {
    "0100007F": 2,  # 127.0.0.1
    "0000000000000000FFFF00000100007F": 2,  # ::ffff:127.0.0.1
    "00000000": 1,  # 0.0.0.0
    "00000000000000000000000000000000": 1,  # ::, which takes IPv4 as well unless told otherwise
}
"""Local addresses as /proc/net/tcp writes them (little-endian); the higher rank gets the connection."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket."""

    inode: int
    uid: int
    rank: int


def parse_tcp(text: str, port: int) -> list[Listener]:
    """Listeners on *port* that a connection to 127.0.0.1 may reach, from /proc/net/tcp or tcp6."""
    wanted = f":{port:04X}"
    found = []
    for line in text.splitlines()[1:]:
        if wanted not in line:
            continue
        fields = line.split()
        address, _, local_port = fields[1].partition(":")
        if fields[3] == LISTEN and ":" + local_port == wanted and address in LOOPBACK_RANK:
            found.append(Listener(int(fields[9]), int(fields[7]), LOOPBACK_RANK[address]))
    return found


def listeners(port: int) -> list[Listener]:
    """Those that would get a connection to 127.0.0.1:*port* (several only with SO_REUSEPORT). Linux."""
    found: list[Listener] = []
    for name in ("tcp", "tcp6"):
        try:
            found += parse_tcp(Path(f"/proc/net/{name}").read_text(), port)
        except OSError:
            continue
    best = max((listener.rank for listener in found), default=0)
    return [listener for listener in found if listener.rank == best]


def socket_inodes(pid: int) -> set[int]:
    """Sockets a process has open; empty when we may not look."""
    folder = f"/proc/{pid}/fd"
    inodes: set[int] = set()
    try:
        names = os.listdir(folder)  # noqa: PTH208 - thousands of entries
    except OSError:
        return inodes
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")  # noqa: PTH115 - thousands of entries
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(int(target[8:-1]))
    return inodes


async def knock(port: int) -> bool:
    """Whether anybody accepts connections on 127.0.0.1:*port*; says nothing to whoever does."""
    address = ("127.0.0.1", port)
    with socket.socket() as probe:
        probe.setblocking(False)
        code = probe.connect_ex(address)
        if code == errno.EINPROGRESS:
            # Linux has the answer of its own loopback by now: it costs an eighth of waiting for it.
            code = probe.connect_ex(address)
        if code not in (errno.EINPROGRESS, errno.EALREADY):
            return code in (0, errno.EISCONN)
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(probe, address), KNOCK_TIMEOUT)
        except OSError:
            return False
    return True


@dataclass(frozen=True, slots=True)
class PortState:
    """What is known of a port."""

    owned: bool
    stranger: str = ""
    """Who has it instead, for people; "" when nobody listens."""


def port_state(record: ChildRecord) -> PortState:
    """Whether the tree of *record* owns its port. Blocks for some milliseconds."""
    if not sys.platform.startswith("linux"):
        return _port_state_by_psutil(record.port, {row.pid for row in processes.tree_of(record)})
    found = listeners(record.port)
    if not found:
        return PortState(owned=False)
    wanted = {listener.inode for listener in found}
    if processes.is_root(record) and wanted <= socket_inodes(record.pid):
        return PortState(owned=True)  # nearly always: no need to read the whole table
    tree = {row.pid for row in processes.tree_of(record)}
    for pid in tree:
        wanted -= socket_inodes(pid)
    if not wanted:
        return PortState(owned=True)
    uids = {listener.uid for listener in found if listener.inode in wanted}
    return PortState(owned=False, stranger=_holder(wanted, tree, uids))


def _holder(inodes: set[int], tree: set[int], uids: Iterable[int]) -> str:
    """Who holds one of these sockets, as far as we may look."""
    for pid, row in processes.table().items():
        if pid not in tree and not inodes.isdisjoint(socket_inodes(pid)):
            return f"pid {pid} ({row.name})"
    return f"a process of uid {', '.join(str(uid) for uid in sorted(uids))}"


def _port_state_by_psutil(port: int, tree: set[int]) -> PortState:
    """The same where there is no /proc: each process of the tree is asked."""
    for pid in tree:
        try:
            connections = psutil.Process(pid).net_connections("tcp")
        except psutil.Error:
            continue
        if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections):
            return PortState(owned=True)
    return PortState(owned=False)
