"""POST /api/config/plan and /api/config/apply: what a reload would do, and doing it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypedDict

import msgspec
import structlog
from aiohttp import web

from config.errors import ConfigError
from config.load import MAX_FILE_BYTES, Draft
from registry.engine import ModelId
from router.control.answers import flag, json_answer
from router.control.deps import ControlDeps
from router.control.door import caller_of
from router.errors import BadConfigError, BadDraftError
from router.reloading import Applied, ConfigStanding, Planned
from supervisor.changeover import Changeover
from supervisor.errors import SupervisorError
from supervisor.reload import Action, ReloadStep

log = structlog.get_logger("modelyard.control")

DRAFT_BYTES: Final = 6 * MAX_FILE_BYTES
"""The largest file, with every byte of it escaped as JSON may."""


class PlannedModel(TypedDict):
    """What a reload does with one model."""

    model: str
    action: str
    """`keep`, `update` (without a restart), `restart` (drained and started anew), `add`, `remove`."""
    changed: list[str]
    """Keys that differ, or what else does: `files`, `command line`, `problem` …"""
    state: str
    """Of its instance, at the moment."""
    refused: str
    """Why it keeps the definition it has although another is wanted; empty when that is not so."""


class PlannedDevice(TypedDict):
    """The memory that is set aside on one device, before and after."""

    device: str
    budget_bytes: int
    before_bytes: int
    after_bytes: int


class ConfigPlan(TypedDict):
    """What a reload would do."""

    file: str | None
    """null: there is none, and everything is the default."""
    changes: bool
    """false: nothing at all is to be done."""
    models: list[PlannedModel]
    devices: list[PlannedDevice]
    settings: list[str]
    """Dotted keys besides `models` that come into force."""
    left_for_restart: list[str]
    """Dotted keys that only a new process reads: `modelyard restart`."""


class AppliedModel(PlannedModel):
    """What a reload did with one model."""

    outcome: str
    """`kept`, `updated`, `added`, `removed`, `restarted`; `rolled_back` (not taken over, or put back);
    `not_started` (it has its new definition, and no process); `pending` (nobody waited)."""
    cause: str
    """Why it is not what was wanted; empty when it is."""


class ConfigApplied(TypedDict):
    """What a reload did."""

    file: str | None
    complete: bool
    """Every model is what the file says, and those that were to be restarted are ready."""
    models: list[AppliedModel]
    """Those with which something was to be done."""
    devices: list[PlannedDevice]
    settings: list[str]
    left_for_restart: list[str]


class RolledBack(TypedDict):
    """A model that is not what the file says."""

    model: str
    changed: list[str]
    cause: str
    at: float


class ConfigState(TypedDict):
    """How the daemon stands to its configuration."""

    file: str | None
    watched: bool
    """The file is applied by itself when it changes."""
    applied_at: float
    error: str
    """Why the last reload changed nothing: one line per problem; empty when it did what was asked."""
    left_for_restart: list[str]
    """Dotted keys that were changed since the start, and that only a new process reads."""
    rolled_back: list[RolledBack]


class Reloads:
    """The two routes."""

    def __init__(self, deps: ControlDeps) -> None:
        self._deps = deps
        self._configuration = deps.configuration

    def routes(self) -> list[web.RouteDef]:
        """What it serves."""
        return [
            web.post("/api/config/plan", self.plan),
            web.post("/api/config/apply", self.apply),
        ]

    async def plan(self, request: web.Request) -> web.Response:
        """What a reload of the daemon's file would do; or, of a file that is sent along, what that would."""
        try:
            planned = await self._configuration.plan(await _draft(request))
        except ConfigError as error:
            raise BadConfigError(str(error)) from None
        return json_answer(plan_answer(planned))

    async def apply(self, request: web.Request) -> web.Response:
        """Reload the daemon's file, and answer when what was restarted is ready or has been put back.

        With `wait=0`: 202 at once. It takes no file: who may say which programs are started here is who may
        write that one. A caller that leaves gives up its wait, and stops nothing.
        """
        wait = flag(request, "wait", default=True)
        log.info("reload_asked", client=caller_of(request).client)
        applied = await asyncio.shield(self._deps.spawn(self._try(), name="reload"))
        if isinstance(applied, ConfigError):
            raise BadConfigError(str(applied))
        if isinstance(applied, SupervisorError):
            raise applied
        if wait:
            await self._configuration.settled(applied)
        return json_answer(applied_answer(applied), status=200 if wait else 202)

    async def _try(self) -> Applied | ConfigError | SupervisorError:
        try:
            return await self._configuration.apply()
        except (ConfigError, SupervisorError) as error:
            return error


async def _draft(request: web.Request) -> Draft | None:
    """The file in the body: `{"file": its absolute path, "text": what is in it}`; None without a body."""
    if not request.can_read_body:
        return None
    try:
        body = msgspec.json.decode(
            await request.clone(client_max_size=DRAFT_BYTES).read(), type=dict[str, str]
        )
        path, text = Path(body["file"]), body["text"]
    except (msgspec.DecodeError, KeyError):
        raise BadDraftError('the body is not {"file": "/its/path", "text": "what is in it"}') from None
    if not path.is_absolute() or "\0" in body["file"]:
        raise BadDraftError(f"{body['file'][:200]!r} is no absolute path")
    return Draft(path, text.encode())


# -- shapes ----------------------------------------------------------------------------------------


def plan_answer(planned: Planned) -> ConfigPlan:
    """*planned* as it is answered."""
    models = [_planned_model(step) for step in planned.plan.steps]
    settings, left = list(planned.settings), list(planned.left_for_restart)
    changes = bool(settings or left) or planned.plan.does_something
    return ConfigPlan(
        file=planned.file,
        changes=changes,
        models=models,
        devices=_devices(planned),
        settings=settings,
        left_for_restart=left,
    )


def applied_answer(applied: Applied) -> ConfigApplied:
    """*applied* as it is answered."""
    planned = applied.planned
    models = [_applied_model(step, applied.begun) for step in planned.plan.steps if step.does_something]
    return ConfigApplied(
        file=planned.file,
        complete=all(model["outcome"] in COMPLETE for model in models),
        models=models,
        devices=_devices(planned),
        settings=list(planned.settings),
        left_for_restart=list(planned.left_for_restart),
    )


def state_answer(standing: ConfigStanding) -> ConfigState:
    """*standing* as it is answered."""
    return ConfigState(
        file=standing.file,
        watched=standing.watched,
        applied_at=standing.applied_at,
        error=standing.error,
        left_for_restart=list(standing.left_for_restart),
        rolled_back=[
            RolledBack(model=model, changed=list(one.changed), cause=one.cause, at=one.at)
            for model, one in sorted(standing.rejected.items())
        ],
    )


_DONE: Final[Mapping[Action, str]] = {
    Action.KEEP: "kept",
    Action.UPDATE: "updated",
    Action.ADD: "added",
    Action.REMOVE: "removed",
}
COMPLETE: Final = frozenset({*_DONE.values(), "restarted"})


def _planned_model(step: ReloadStep) -> PlannedModel:
    return PlannedModel(
        model=step.model,
        action=step.action.value,
        changed=list(step.difference.changed),
        state=step.state.value,
        refused=step.refused,
    )


def _applied_model(step: ReloadStep, begun: Mapping[ModelId, Changeover]) -> AppliedModel:
    changeover = begun.get(step.model)
    if step.refused:
        outcome, cause = "rolled_back", step.refused
    elif changeover is not None:
        outcome = "pending" if changeover.outcome is None else changeover.outcome.value
        cause = changeover.cause
    else:
        outcome, cause = _DONE[step.action], ""
    return AppliedModel(**_planned_model(step), outcome=outcome, cause=cause)


def _devices(planned: Planned) -> list[PlannedDevice]:
    return [
        PlannedDevice(
            device=one.device,
            budget_bytes=one.budget_bytes,
            before_bytes=one.before_bytes,
            after_bytes=one.after_bytes,
        )
        for one in planned.plan.devices
    ]
