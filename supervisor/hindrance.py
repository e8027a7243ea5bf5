"""Why no load could make progress now, whatever was asked for. Pure: no clock, no I/O, no log."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from registry.engine import HOST, DeviceId
from supervisor.admission import FleetPicture, ModelPicture, fits_nowhere, gib
from supervisor.lifecycle import State


def hindrance(picture: FleetPicture, *, free: Mapping[DeviceId, int], storage: str, is_served: bool) -> str:
    """The reason, for people; "" when some model serves, is on its way, or could be started.

    *free*: bytes that were measured as free, where they can be. *storage*: why nothing can be written where
    trees need it. *is_served*: admission decides. Models that are FAILED or in BACKOFF are not looked at:
    they say themselves why.
    """
    if not is_served:
        return "the scheduler has stopped deciding: the log says why"
    startable = [model for model in picture.models if model.state is State.STOPPED]
    others = [model for model in picture.models if model.state not in (State.BACKOFF, State.FAILED)]
    if not startable or len(others) > len(startable):
        return ""
    if storage:
        return f"no model can be started: {storage}"
    left = {d: b - picture.stuck.get(d, 0) for d, b in picture.budgets.items()}
    return (
        _if_none_fits(startable, lambda model: fits_nowhere(model.needs, picture.budgets))
        or _if_none_fits(startable, lambda model: _beside_leftovers(model, left, picture.releasing))
        or _if_none_fits(startable, lambda model: _beside_strangers(model, free))
    )


def _if_none_fits(models: list[ModelPicture], why: Callable[[ModelPicture], str | None]) -> str:
    reasons = [(model.model, why(model)) for model in models]
    first, reason = min(reasons)
    return f"no model can be started; {first} {reason}" if all(said for _, said in reasons) else ""


def _beside_leftovers(
    model: ModelPicture, left: Mapping[DeviceId, int], releasing: tuple[str, ...]
) -> str | None:
    if fits_nowhere(model.needs, left) is None:
        return None
    return "waits for " + ", ".join(text for text in releasing if text.startswith("memory that"))


def _beside_strangers(model: ModelPicture, free: Mapping[DeviceId, int]) -> str | None:
    """Only on GPUs: of RAM the system gives more than is free, from what it has cached."""
    reasons = [_too_little(need, free) for need in model.needs]
    return reasons[0] if all(reasons) else None


def _too_little(need: Mapping[DeviceId, int], free: Mapping[DeviceId, int]) -> str | None:
    for device, bytes_ in need.items():
        if device != HOST and bytes_ > free.get(device, bytes_):
            left = f"{gib(free[device])} are left by processes that are not ours"
            return f"needs {gib(bytes_)} on {device}, where {left}"
    return None
