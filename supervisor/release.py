"""Memory of trees that are gone: set aside until it is measured back, and whose it still is when it is not.

A driver frees a GPU's memory some time after the process has ended, and a process that escaped its tree may
keep it for ever. The next start on that device waits for it; after `free_timeout` whoever holds it is named,
and what it holds counts as taken until it lets go. RAM of a dead process is free at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from registry.engine import HOST, DeviceId, ModelId
from supervisor.ports import ChildRecord, Clock, Leftover, MemoryProbe, Timer

LOOK_EVERY = 0.25
"""Seconds between two looks: a driver takes a tenth to two seconds."""
LOOK_LATE = 5.0
"""The same, once it is late: nobody knows when, and somebody may end the holder by hand."""


@dataclass(slots=True)
class _Gone:
    """A tree that is gone."""

    record: ChildRecord
    held: Mapping[DeviceId, int]
    """What had been set aside for it, where that can be measured."""
    since: float
    leftovers: tuple[Leftover, ...] = ()
    late: bool = False


class Releases:
    """The trees that are gone and whose memory is not yet."""

    def __init__(
        self,
        clock: Clock,
        memory: MemoryProbe,
        *,
        timeout: float,
        freed: Callable[[], None],
        late: Callable[[ModelId, tuple[Leftover, ...]], None],
    ) -> None:
        """*freed* is called when there is more room than before; *late* once per tree, with who holds on."""
        self._clock = clock
        self._memory = memory
        self._timeout = timeout
        self._freed = freed
        self._late = late
        self._gone: list[_Gone] = []
        self._timer: Timer | None = None

    def begin(self, record: ChildRecord, reserved: Mapping[DeviceId, int]) -> None:
        """The tree of *record* is empty; *reserved* had been set aside for it."""
        held = {device: bytes_ for device, bytes_ in reserved.items() if device != HOST and bytes_}
        if held and self._memory.leftovers(record) != ():
            self._gone.append(_Gone(record, held, self._clock.now()))
            self._arm()

    def coming(self) -> dict[DeviceId, int]:
        """Bytes that will be free soon."""
        return _sum(gone.held for gone in self._gone if not gone.late)

    def stuck(self) -> dict[DeviceId, int]:
        """Bytes that somebody holds on to."""
        return _sum({left.device: left.bytes} for gone in self._gone if gone.late for left in gone.leftovers)

    def who(self) -> tuple[str, ...]:
        """What is waited for, for people."""
        return tuple(
            f"the memory of {gone.record.model}"
            if not gone.late
            else f"memory that {named(gone.leftovers)}, left over from {gone.record.model}, still holds"
            for gone in self._gone
        )

    def _arm(self) -> None:
        if self._timer is None and self._gone:
            every = LOOK_LATE if all(gone.late for gone in self._gone) else LOOK_EVERY
            self._timer = self._clock.call_later(every, self._look)

    def _look(self) -> None:
        self._timer = None
        now, better = self._clock.now(), False
        for gone in list(self._gone):
            left = self._memory.leftovers(gone.record)
            if left == ():
                self._gone.remove(gone)
                better = True
            elif not gone.late and now - gone.since >= self._timeout:
                # Not measured in all this time: the probe is ill, and what it cannot see it cannot forbid.
                gone.late, gone.leftovers, better = True, left or (), True
                self._late(gone.record.model, gone.leftovers)
            elif gone.late and left is not None and left != gone.leftovers:
                gone.leftovers, better = left, True
        self._arm()
        if better:
            self._freed()


def named(leftovers: tuple[Leftover, ...]) -> str:
    """`pid 4711 (10.0 GiB on gpu0)`."""
    if not leftovers:
        return "nobody that can be seen"
    return ", ".join(f"pid {left.pid} ({left.bytes / 2**30:.1f} GiB on {left.device})" for left in leftovers)


def _sum(parts: Iterable[Mapping[DeviceId, int]]) -> dict[DeviceId, int]:
    sums: dict[DeviceId, int] = {}
    for part in parts:
        for device, bytes_ in part.items():
            sums[device] = sums.get(device, 0) + bytes_
    return sums
