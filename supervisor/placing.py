"""Where a model goes of the places where it may: one that holds it and costs the least. Pure.

A place is a set of devices with the bytes that a start would set aside there. Admission looks at all places
of a model, takes the best for this round, and goes on as if there were no other.
"""

from __future__ import annotations

from collections.abc import Mapping

from registry.engine import HOST, DeviceId


def moved(sizes: Mapping[DeviceId, int], need: Mapping[DeviceId, int]) -> dict[DeviceId, int]:
    """*sizes* of a tree as they would be where *need* is: RAM stays, each GPU's go to another in its order.

    What has no counterpart there is left out.
    """
    if sizes.keys() <= need.keys():
        return dict(sizes)
    there = sorted(device for device in need if device != HOST)
    here = sorted(device for device in sizes if device != HOST)
    found = {to: sizes[of] for of, to in zip(here, there, strict=False)}
    if HOST in sizes:
        found[HOST] = sizes[HOST]
    return found


def left_over(need: Mapping[DeviceId, int], free: Mapping[DeviceId, int]) -> int:
    """Bytes of its GPUs (of RAM for one that takes none) that nobody could be using: the fewest fit best."""
    devices = [device for device in need if device != HOST] or list(need)
    return sum(free.get(device, 0) - need[device] for device in devices)
