"""Decisions of admission in words, with the numbers they were made on: for `modelyard explain`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.engine import DeviceId, ModelId
from supervisor.accounts import Accounts
from supervisor.admission import Evict, FleetPicture, ModelPicture, Plan, Refuse, Start, gib
from supervisor.lifecycle import State
from supervisor.progress import Estimate

_DOING: Mapping[State, str] = {
    State.STOPPED: "is not running",
    State.STARTING: "is being started",
    State.READY: "runs, with all its slots taken",
    State.DRAINING: "finishes what it is at and is then stopped",
    State.STOPPING: "is being stopped",
    State.BACKOFF: "has crashed and is to be started again",
    State.FAILED: "keeps crashing",
}


def situation(picture: FleetPicture, model: ModelId) -> tuple[str, dict[str, Any]]:
    """How things stand for a request for *model* that comes now: in words, and the numbers."""
    mine = next(one for one in picture.models if one.model == model)
    text = f"{model} {_DOING[mine.state]}"
    if mine.waiting:
        text += f", and {mine.waiting} wait for it already"
    if mine.state is not State.STOPPED:
        return text, {}
    free = _free(picture)
    needs = [
        f"{gib(bytes_)} on {device}, where {gib(free[device])} of {gib(picture.budgets[device])} are free"
        for device, bytes_ in sorted(mine.need.items())
        if bytes_ and device in picture.budgets
    ]
    text += f"; it needs {' and '.join(needs)}" if needs else ""
    text += f" ({len(mine.others)} other places would do)" if mine.others else ""
    return text, {"need_bytes": dict(mine.need), "free_bytes": free, "budget_bytes": dict(picture.budgets)}


def loading(model: ModelId, estimate: Estimate | None, note: str) -> str:
    """A start that is under way."""
    text = f"loading {model}"
    if estimate is not None and estimate.left is not None:
        text += f" {estimate.done:.0%} eta {estimate.left:.0f}s"
    return f"{text}: {note}" if note else text


def record(accounts: Accounts, plan: Plan, picture: FleetPicture) -> None:
    """Tell *accounts* what *plan* does, and for whom."""
    if not plan.decisions and not plan.notes:
        return
    models = {one.model: one for one in picture.models}
    for decision in plan.decisions:
        match decision:
            case Start(model, reserve, _):
                accounts.tell(model, "start", _start(reserve), reserved_bytes=dict(reserve))
            case Evict(model, beneficiary):
                victim = models[model]
                text, numbers = _eviction(decision, victim), _inputs(victim)
                accounts.tell(beneficiary, "evict", text, **numbers)
                accounts.tell(model, "evicted", text, **numbers)
            case Refuse(model, reason):
                accounts.tell(model, "refuse", reason)
    for model, note in (plan.notes or {}).items():
        if models[model].waiting:
            accounts.tell(model, "waits", note)


def _free(picture: FleetPicture) -> dict[DeviceId, int]:
    free = dict(picture.budgets)
    for model in picture.models:
        for device, bytes_ in model.reserved.items():
            free[device] = free.get(device, 0) - bytes_
    return {device: max(bytes_, 0) for device, bytes_ in free.items()}


def _start(reserve: Mapping[DeviceId, int]) -> str:
    parts = [f"{gib(bytes_)} on {device}" for device, bytes_ in sorted(reserve.items()) if bytes_]
    return "started" + (f", with {' and '.join(parts)} set aside" if parts else "")


def _eviction(decision: Evict, victim: ModelPicture) -> str:
    held = " and ".join(f"{gib(b)} on {d}" for d, b in sorted(victim.reserved.items()) if b) or "nothing"
    use = f"{victim.leases} requests in flight" if victim.leases else f"idle for {victim.idle:.0f} s"
    why = "" if decision.reason == "idle" else f" because {decision.reason}"
    return (
        f"{decision.model} is stopped for {decision.beneficiary}{why}: {use}, holds {held}, takes "
        f"{victim.load_seconds:.0f} s to bring back, was asked {victim.rate * 60:.1f} times a minute"
    )


def _inputs(victim: ModelPicture) -> dict[str, Any]:
    return {
        "idle_seconds": round(victim.idle, 3),
        "leases": victim.leases,
        "frees_bytes": dict(victim.reserved),
        "load_seconds": round(victim.load_seconds, 3),
        "requests_per_second": round(victim.rate, 5),
    }
