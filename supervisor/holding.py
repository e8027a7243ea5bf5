"""What an instance has of the devices: set aside, measured, and wanted after it was too little. No clock, no
I/O."""

from __future__ import annotations

from collections.abc import Mapping

from registry.engine import DeviceId

MORE = 1.5
"""An engine that ran out of what was set aside for it gets so many times that, once."""


class Holding:
    """The books of one instance."""

    __slots__ = ("_granted", "lacked", "peak", "reserved")

    def __init__(self) -> None:
        self.reserved: Mapping[DeviceId, int] = {}
        self.lacked: dict[DeviceId, int] = {}
        """What to set aside for the one more try after its memory did not suffice; empty otherwise."""
        self.peak: dict[DeviceId, int] = {}
        """Most bytes this incarnation was seen to hold."""
        self._granted: Mapping[DeviceId, int] = {}
        """What was set aside for its last start."""

    def grant(self, reserve: Mapping[DeviceId, int]) -> None:
        """*reserve* is set aside for it."""
        self.reserved = self._granted = dict(reserve)

    def see(self, sizes: Mapping[DeviceId, int]) -> bool:
        """It was measured to hold *sizes*: no less than that is its. Whether that is more than was set
        aside."""
        more = False
        for device, bytes_ in sizes.items():
            if bytes_ > self.peak.get(device, 0):
                self.peak[device] = bytes_
            if bytes_ > self.reserved.get(device, 0):
                self.reserved = {**self.reserved, device: bytes_}
                more = True
        return more

    def wants_more(self) -> bool:
        """Its memory did not suffice: remember what may, unless that was tried already; whether it is."""
        if self.lacked:
            return False
        self.lacked = {d: max(int(b * MORE), self.peak.get(d, 0)) for d, b in self._granted.items()}
        return bool(self.lacked)

    def give_back(self) -> Mapping[DeviceId, int]:
        """Nothing is its any more; what was."""
        reserved, self.reserved = self.reserved, {}
        return reserved
