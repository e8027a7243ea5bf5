"""Reloads: `config plan`, `config apply`, SIGHUP and the watched file, all by one plan.

Reading, validating, looking for models and comparing them happen in a thread; the event loop only decides
(`supervisor.reload`) and carries out (`supervisor.changeover`). One reload at a time: whoever asks meanwhile
gets the next one. A file that cannot be used changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from config.diff import changed_settings, left_for_restart
from config.errors import ConfigError
from config.load import Draft, Loaded
from registry.catalog import Catalog, build_catalog
from registry.engine import ModelId
from registry.model import Model
from registry.model_memory import ModelMemory
from router.config_watch import ConfigWatch
from router.handover import HandOverError
from router.tls import certificate_of, renew
from supervisor.changeover import Changeover
from supervisor.errors import StoppingError
from supervisor.reload import Difference, Rejected, ReloadPlan, compare

if TYPE_CHECKING:
    from router.wiring import Daemon

log = structlog.get_logger("modelyard")

Read = Callable[[Draft | None], Loaded]
"""The daemon's own file, or a draft, with the command line's words on top. Blocks; raises ConfigError."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What a reload would do, or did."""

    file: str | None
    plan: ReloadPlan
    settings: tuple[str, ...]
    """Dotted keys besides `models` that come into force."""
    left_for_restart: tuple[str, ...]
    """Dotted keys that only a new process reads."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What a reload did, and what goes on because of it."""

    planned: Planned
    begun: Mapping[ModelId, Changeover]


@dataclass(frozen=True, slots=True)
class ConfigStanding:
    """How the daemon stands to its file."""

    file: str | None
    watched: bool
    applied_at: float
    """Unix seconds."""
    error: str
    """Why the last reload changed nothing; "" when it did what it was asked for."""
    left_for_restart: tuple[str, ...]
    rejected: Mapping[ModelId, Rejected]


@dataclass(frozen=True, slots=True)
class _Prepared:
    loaded: Loaded
    found: Catalog
    differences: tuple[Difference, ...]
    settings: tuple[str, ...]
    left_for_restart: tuple[str, ...]


class Reloading:
    """Reads the configuration again and puts it into force."""

    def __init__(self, daemon: Daemon, read: Read) -> None:
        self._daemon = daemon
        self._read = read
        self._turn = asyncio.Lock()
        self._is_asked = False
        """A reload is due that has not begun."""
        self._has_started = False
        self._error = ""
        self._left_for_restart: tuple[str, ...] = ()

    def start(self) -> None:
        """The configuration that was read at the start is in force; look at the file from now on."""
        daemon = self._daemon
        self._started_with = daemon.settings
        self._applied_at = daemon.clock.wall()
        self._watch = ConfigWatch(
            lambda: daemon.loaded if daemon.settings.watch_config else None,
            clock=daemon.clock,
            spawn=daemon.tasks.spawn,
            changed=self.ask,
        )
        self._watch.start()
        self._has_started = True
        if self._is_asked:
            daemon.tasks.spawn(self._asked(), name="reload")

    def close(self) -> None:
        """Look at the file no more."""
        self._watch.close()

    @property
    def standing(self) -> ConfigStanding:
        """Now."""
        daemon = self._daemon
        path = daemon.loaded.path
        return ConfigStanding(
            file=None if path is None else str(path),
            watched=daemon.settings.watch_config,
            applied_at=self._applied_at,
            error=self._error,
            left_for_restart=self._left_for_restart,
            rejected=daemon.supervisor.changeovers.rejected,
        )

    # -- asking for it -----------------------------------------------------------------------------

    def ask(self) -> None:
        """SIGHUP, or the file has changed: reload; or, when another version of the program was installed
        meanwhile, hand over to it.

        Definitions that have failed are not tried again: whoever sends the signal may only want new models
        to be found. While the daemon starts it is put off until there is something to reload.
        """
        if not self._is_asked:
            self._is_asked = True
            if self._has_started:
                self._daemon.tasks.spawn(self._asked(), name="reload")

    async def _asked(self) -> None:
        async with self._turn:
            self._is_asked = False  # from here on the file is read: whoever asks now wants it read again
            if self._daemon.supervisor.stopping:
                return
            leaving = self._daemon.leaving
            if await asyncio.to_thread(leaving.code_changed):
                with contextlib.suppress(HandOverError):  # logged; this version serves on
                    await leaving.hand_over()
                return
            with contextlib.suppress(Exception):  # logged; the old configuration stays, whatever is wrong
                await self._apply(retry=False)

    async def plan(self, draft: Draft | None) -> Planned:
        """What `apply` would do, or would do if *draft* were the file. Raises ConfigError, StoppingError."""
        async with self._turn:
            self._must_decide()
            before = self._daemon.definitions()
            prepared = await asyncio.to_thread(partial(self._prepare, draft, before, aside=True))
        return self._planned(prepared, self._plan(prepared, retry=True))

    async def apply(self) -> Applied:
        """Put the file into force; what has failed before is tried again.

        Raises ConfigError or StoppingError, and then nothing has changed.
        """
        async with self._turn:
            self._must_decide()
            return await self._apply(retry=True)

    async def settled(self, applied: Applied) -> None:
        """Return when every model that is restarted because of it is ready, or has been put back."""
        await self._daemon.supervisor.changeovers.settled(applied.begun)

    def _must_decide(self) -> None:
        """A daemon that was handed over has instances that are another's."""
        if self._daemon.supervisor.stopping:
            raise StoppingError("this process serves only what is open: ask again", retry_after=1.0)

    # -- inside ------------------------------------------------------------------------------------

    async def _apply(self, *, retry: bool) -> Applied:
        daemon = self._daemon
        try:
            prepared = await asyncio.to_thread(self._prepare, None, daemon.definitions())
            await daemon.load_keys(prepared.loaded.settings)
            renew(daemon.certificate, prepared.loaded.settings.tls)
        except Exception as error:
            self._error = str(error)
            # A ConfigError is the operator's and says all; anything else is a bug, which needs its traceback.
            ours = not isinstance(error, ConfigError)
            log.error("reload_failed", error=str(error), exc_info=ours)  # noqa: TRY400  see above
            raise
        # From here to the catalog nothing waits: what was planned is what is there.
        plan = self._plan(prepared, retry=retry)
        planned = self._planned(prepared, plan)
        begun = daemon.supervisor.changeovers.carry_out(plan)
        daemon.loaded = prepared.loaded
        self._error, self._applied_at = "", daemon.clock.wall()
        self._left_for_restart = prepared.left_for_restart
        await daemon.publish(prepared.found)
        log.info(
            "reloaded",
            models=len(prepared.found.models),
            restarting=sorted(begun),
            settings=planned.settings,
            left_for_restart=planned.left_for_restart,
        )
        return Applied(planned, begun)

    def _prepare(
        self, draft: Draft | None, before: Mapping[ModelId, Model], *, aside: bool = False
    ) -> _Prepared:
        """In a thread."""
        daemon, loaded = self._daemon, self._read(draft)
        certificate_of(loaded)  # raises where it could not be shown
        environment = daemon.environment
        if aside:
            # The models that are kept between catalogs are those of the file that is in force.
            environment = replace(environment, models=ModelMemory())
        found = build_catalog(loaded.settings, daemon.machine, environment)
        return _Prepared(
            loaded,
            found,
            compare(before, found.models),
            changed_settings(daemon.settings, loaded.settings),
            left_for_restart(self._started_with, loaded.settings),
        )

    def _plan(self, prepared: _Prepared, *, retry: bool) -> ReloadPlan:
        changeovers = self._daemon.supervisor.changeovers
        differences = prepared.differences
        if not retry:
            # Nobody is shown this plan. Models that are the same to the byte are nearly all of hundreds, and
            # going through them takes longer than a token may wait.
            differences = tuple(
                one for one in differences if one.before is not one.after or one.model in changeovers.rejected
            )
        return changeovers.plan(differences, retry=retry)

    @staticmethod
    def _planned(prepared: _Prepared, plan: ReloadPlan) -> Planned:
        path = prepared.loaded.path
        file = None if path is None else str(path)
        return Planned(file, plan, prepared.settings, prepared.left_for_restart)
