"""The composition root: every port meets its adapter here, and nowhere else."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import random
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web

from config import places
from config.keys import keys_file
from config.listening import reached_at
from config.load import Loaded
from config.schema import Settings
from registry.catalog import Catalog, build_catalog, openai_entry
from registry.discovery import Environment
from registry.engine import Diagnosis, Machine, ModelId
from registry.engine_choice import ENGINES
from registry.machine import read_machine
from registry.model import Model
from registry.probe import ServedModel
from router.access_log import AccessLog
from router.auth import Auth
from router.control.app import build_app
from router.control.deps import ControlDeps, FrontStats
from router.control.door import Door
from router.control.events import EventRing
from router.control.guard import Guard
from router.cors import Cors
from router.directory import CatalogDirectory, Routes, routes_of
from router.endpoints import INSTANCE_HEADER, Endpoints
from router.errors import refusal_for
from router.front import Front
from router.handover import Book, Predecessor
from router.key_store import KeyStore
from router.leaving import Leaving
from router.live_facts import LiveFacts
from router.logs import Format, LineSink
from router.metrics import LoopLag, Metrics, RequestRate
from router.numbers import front_limits, policy_of
from router.ports import Recorder, RequestRecord
from router.reloading import Read, Reloading
from router.service import (
    Heartbeat,
    Notifier,
    inherited_listeners,
    runs_as_service,
    summary_of,
    watchdog_seconds,
)
from router.shared import FrontPorts, request_ids
from router.sockets import address_of, is_local, listening_sockets, port_of, remove_socket_files, speaks_tls
from router.tls import certificate_of
from router.upstreams import FleetUpstreams
from router.welcome import welcome
from supervisor.busyness import HttpBusyness
from supervisor.clock import SystemClock
from supervisor.fleet import Supervisor
from supervisor.journal import SqliteJournal
from supervisor.memory import HostMemory
from supervisor.port_source import LoopbackPorts
from supervisor.ports import EventKind, ExitReport, SupervisorEvent
from supervisor.readiness import HttpReadiness
from supervisor.shim_client import ShimLauncher, ShimSettings
from supervisor.state_dir import StateDir
from supervisor.storage import StorageWatch
from supervisor.tasks import TaskScope
from supervisor.world import World

log = structlog.get_logger("modelyard")

WORTH_A_WARNING = frozenset({EventKind.FAILED, EventKind.REFUSED, EventKind.ROLLED_BACK})
ADOPT_WITHIN_SERVICE = 60.0
"""A service manager restarts a crashed daemon within seconds; a minute also covers an upgrade by hand."""
ADOPT_WITHIN_FOREGROUND = 5.0
"""A person whose foreground daemon died starts the next one at once, or wants the memory back."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the daemon came from."""

    read: Read
    """Reads the configuration again."""
    version: str
    demo_dir: Path | None = None
    """`demo/models` of a source checkout."""


class Daemon:
    """One daemon: made, started, stopped."""

    def __init__(self, loaded: Loaded, origin: Origin, *, sink: LineSink, style: Format) -> None:
        self.loaded = loaded
        self._sink = sink
        self._style = style
        self._origin = origin
        self.leaving = Leaving(self, dict(os.environ))
        self._predecessor = Predecessor.from_environment(os.environ)
        self._is_service = runs_as_service(os.environ, pid=os.getpid())
        self._watchdog = watchdog_seconds(os.environ, pid=os.getpid())
        self._notifier = Notifier.from_environment(os.environ)
        self._instance_id = secrets.token_hex(8)
        self.environment = Environment(
            env=os.environ, engines_dir=places.engines_dir(os.environ), demo_dir=origin.demo_dir
        )
        self.tasks = TaskScope()
        self.reloading = Reloading(self, origin.read)
        self._publishing = asyncio.Lock()
        self.are_passed = self._predecessor is not None and self._predecessor.are_passed
        """A service manager opened our sockets, and keeps them."""

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self.loaded.settings

    # -- starting ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve from here on. Raises AlreadyRunningError, or OSError when it cannot listen or keep state."""
        loop = asyncio.get_running_loop()
        settings = self.settings
        self.clock = SystemClock(loop)
        self._began = self.clock.now()
        before = self._predecessor
        self.certificate = certificate_of(self.loaded)
        self.listeners = self._listeners() if before is None else before.listeners
        self._addresses = tuple(address_of(listener, settings) for listener in self.listeners)
        path = settings.state_dir or places.state_dir(os.environ)
        self.state = StateDir.acquire(path) if before is None else StateDir.take_over(path, before.lock)
        self.machine: Machine = await asyncio.to_thread(read_machine)
        self._found = await asyncio.to_thread(self._build_catalog)
        self.memory = await asyncio.to_thread(HostMemory, settings.memory)
        self.memory.start()
        self.metrics = Metrics(version=self._origin.version, models=self._found.models)
        self.rate = RequestRate(self.clock, lambda: self.metrics.totals().total)
        # Cookies know hosts and no ports: daemons side by side need different names.
        self.auth = Auth(wall=self.clock.wall, cookie=f"modelyard_{port_of(self._addresses)}")
        self.keys = KeyStore(self.auth, clock=self.clock, spawn=self.tasks.spawn, changed=self._keys_changed)
        await self.load_keys(settings)
        self.events = EventRing(self.clock)
        holding = await before.prepared() if before is not None else {}
        self.state.sign()
        self.journal = await asyncio.to_thread(SqliteJournal, self.state.journal_file)
        self.storage = StorageWatch(
            (self.state.run_dir, self.state.log_dir), clock=self.clock, spawn=self.tasks.spawn
        )
        self.supervisor = Supervisor(self._found.models.values(), self._world(), policy_of(settings))
        self.endpoints = Endpoints(
            settings.endpoints or (),
            clock=self.clock,
            spawn=self.tasks.spawn,
            instance_id=self._instance_id,
            changed=self._catalog_changed,
        )
        self.live = LiveFacts(
            lambda: self.directory.catalog.models,
            self.supervisor,
            spawn=self.tasks.spawn,
            changed=self._catalog_changed,
        )
        self.upstreams = FleetUpstreams(self.supervisor, self.endpoints)
        self.directory = CatalogDirectory(self._found, self.upstreams.standing)
        self.reloading.start()
        await self.supervisor.begin(holding)
        await self._open()
        if before is not None:
            self.tasks.spawn(before.serve(self._book(), self.tasks.spawn), name="predecessor")
        self.endpoints.start()
        self.storage.start()
        self.keys.start()
        self.lag = LoopLag(self.clock, self.metrics.lag)
        self.lag.start()
        self.rate.start()
        self._announce()
        self._warn_if_open()
        self.heartbeat = Heartbeat(
            self._notifier,
            self.clock,
            watchdog=self._watchdog,
            summary=self._summary,
            is_served=lambda: self.supervisor.is_served,
        )
        self.heartbeat.start()
        if self._watchdog is not None:
            # systemd ends a silent daemon by SIGABRT: the journal then shows where it hung.
            faulthandler.enable()

    def _book(self) -> Book:
        return Book(
            lease=lambda ask: self.supervisor.lease(
                ask.model, timeout=ask.timeout, request=ask.request, priority=ask.priority
            ),
            returned=self.supervisor.returned,
        )

    def _listeners(self) -> tuple[socket.socket, ...]:
        """Bound before anything else is touched, so that a taken port costs nothing and says so."""
        inherited = inherited_listeners(os.environ, pid=os.getpid())
        if inherited:
            self.are_passed = True
            addresses = [address_of(listener) for listener in inherited]
            log.info("listeners_inherited", addresses=addresses, configured=self.settings.addresses)
            return inherited
        return listening_sockets(self.settings)

    def _build_catalog(self) -> Catalog:
        return build_catalog(self.settings, self.machine, self.environment)

    def _world(self) -> World:
        adopt_within = self.settings.adopt_within
        if adopt_within is None:
            adopt_within = ADOPT_WITHIN_SERVICE if self._is_service else ADOPT_WITHIN_FOREGROUND
        launcher = ShimLauncher(
            ShimSettings(run_dir=self.state.run_dir, log_dir=self.state.log_dir, adopt_within=adopt_within),
            tasks=self.tasks,
            clock=self.clock,
            recorded=self.journal.children,
        )
        return World(
            clock=self.clock,
            launcher=launcher,
            readiness=HttpReadiness(tasks=self.tasks, clock=self.clock),
            busyness=HttpBusyness(tasks=self.tasks),
            memory=self.memory,
            ports=LoopbackPorts(),
            journal=self.journal,
            emit=self._emit,
            diagnose=_diagnose,
            new_key=lambda: secrets.token_urlsafe(24),
            jitter=random.SystemRandom().random,
            storage=lambda: self.storage.trouble,
            fault=lambda error: log.error("scheduling_failed", exc_info=error),
        )

    async def _open(self) -> None:
        app = build_app(self._control_deps())
        app.on_response_prepare.append(self._sign)
        self.door = Door(app, spawn=self.tasks.spawn)
        await self.door.start()
        self.access_log = AccessLog(self._sink, style=self._style, clock=self.clock)
        self.front = Front(
            FrontPorts(
                directory=self.directory,
                upstreams=self.upstreams,
                refusals=refusal_for,
                recorder=self._recorder(),
                control=self.door,
                spawn=self.tasks.spawn,
                now=asyncio.get_running_loop().time,
                request_ids=request_ids(f"req-{secrets.token_hex(4)}"),
                authorizer=self.auth.__call__,  # the method: calling the object costs twice as much
                cors=Cors(self.settings.cors.origins),
                stranger=Guard.build(self._addresses, self.settings.host_names).refuses,
            ),
            limits=front_limits(self.settings),
        )
        secure = [listener for listener in self.listeners if speaks_tls(listener, self.settings)]
        await self.front.start(sockets=self.listeners, secure=secure, tls=self.certificate)

    def _recorder(self) -> Recorder:
        count = self.metrics.record
        if not self.settings.log.access:
            return count
        write = self.access_log.note

        def record(request: RequestRecord) -> None:
            count(request)
            write(request)

        return record

    def _control_deps(self) -> ControlDeps:
        return ControlDeps(
            fleet=self.supervisor,
            catalog=lambda: self.directory.catalog,
            resolve=lambda name: self.directory.catalog.resolve(name, None),
            pick=self.directory.model,
            entry=openai_entry,
            events=self.events,
            metrics=self.metrics,
            front=lambda: FrontStats(
                connections=self.front.counters.connections,
                in_flight=self.front.counters.in_flight,
                buffered_bytes=self.front.shared.budget.held,
            ),
            requests_per_second=self.rate.per_second,
            clock=self.clock,
            spawn=self.tasks.spawn,
            version=self._origin.version,
            pid=os.getpid(),
            listen=self._addresses,
            host_names=frozenset(self.settings.host_names),
            started=self._began,
            seed=lambda: self.settings.seed,
            auth=self.auth,
            hand_over=self.leaving.hand_over,
            configuration=self.reloading,
        )

    async def _sign(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers[INSTANCE_HEADER] = self._instance_id

    def _announce(self) -> None:
        took = self.clock.now() - self._began
        models = self._found.models.values()
        usable = [model for model in models if model.problem is None]
        log.info(
            "daemon_ready",
            url=reached_at(self._addresses[0])[0],
            models=len(usable),
            unusable=len(models) - len(usable),
            config=str(self.loaded.path) if self.loaded.path else None,
            took_seconds=round(took, 3),
        )
        self._notifier.ready(f"{len(usable)} models, serving on {', '.join(self._addresses)}")
        if self._style == "console":
            self._sink.write(
                welcome(self._found, self._addresses[0], self._origin.version, keys=self.auth.on)
            )

    async def load_keys(self, settings: Settings) -> None:
        """Put the keys of *settings* and of their file in force. Raises ConfigError, and changes nothing."""
        await self.keys.load(keys_file(settings, os.environ), settings.keys)

    def _keys_changed(self, gone: frozenset[str]) -> None:
        self.metrics.set_keys(self.auth.names())
        if gone and hasattr(self, "door"):
            self.door.hang_up(gone)
        if hasattr(self, "front"):
            self._warn_if_open()

    def _warn_if_open(self) -> None:
        far = [address for address in self._addresses if not is_local(address)]
        if far and not self.auth.on:
            log.warning(
                "everybody_let_in",
                addresses=far,
                risk="whoever reaches these addresses may use, load and stop models and read their logs",
                remedy="`modelyard key add NAME --scope admin` makes a key and switches keys on, or "
                "listen on 127.0.0.1",
            )

    def _summary(self) -> str:
        models = len(self.directory.catalog.models)
        return summary_of(self.supervisor.view(), models=models, listen=", ".join(self._addresses))

    # -- news --------------------------------------------------------------------------------------

    def _emit(self, event: SupervisorEvent) -> None:
        self.metrics.on_event(event)
        self.events.publish(event)
        self.live.on_event(event)
        if event.kind is EventKind.ROLLED_BACK:
            self._catalog_changed()
        level = log.warning if event.kind in WORTH_A_WARNING else log.info
        if event.kind is EventKind.BUG:
            level = log.error
        if event.kind is EventKind.STATE_CHANGED:
            level = log.debug
        level(event.kind.value, model=event.model, incarnation=event.incarnation, **event.data)

    def _catalog_changed(self) -> None:
        self.tasks.spawn(self._publish(), name="publish catalog")

    async def publish(self, found: Catalog) -> None:
        """Route by *found*, and by what endpoints and engines say; returns when it is in force."""
        self._found = found
        await self._publish()

    async def _publish(self) -> None:
        """Put what is true now in force. One after the other: the last to be asked for comes last."""
        async with self._publishing:
            # In a thread: with hundreds of models it takes longer than a token may wait.
            catalog, routes = await asyncio.to_thread(
                _merged, self._found, self._kept(), self.endpoints.served(), self.live.served()
            )
            self.directory.publish(catalog, routes)
            self.metrics.set_models(catalog.models)

    def definitions(self) -> dict[ModelId, Model]:
        """Every model by the definition that is in force."""
        return {**self._found.models, **self._kept()}

    def _kept(self) -> dict[ModelId, Model]:
        """Models that were not changed to what they are in the catalog: that failed, or was sure to."""
        known, instances = self._found.models, self.supervisor.instances
        return {i.id: i.model for i in instances.values() if i.model is not known.get(i.id, i.model)}

    # -- leaving and stopping ----------------------------------------------------------------------

    async def run_until(self, stop: asyncio.Event) -> None:
        """Until *stop*, or until another daemon has taken over and all that was open here has ended."""

        async def left() -> None:
            await self.leaving.done.wait()
            await self.leaving.finish()

        ends = [self.tasks.spawn(stop.wait(), name="stop"), self.tasks.spawn(left(), name="leave")]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)

    def told_successor(self, pid: int) -> None:
        """The service manager minds *pid* from now on."""
        self._notifier.main_process(pid)
        self.heartbeat.close()

    @property
    def stands_in(self) -> bool:
        """Whoever started this process cannot be told of a successor: it must be waited for."""
        return self.leaving.successor is not None and not self._notifier.is_heard

    async def stop(self) -> None:
        """Stop serving, give open answers `shutdown_grace` seconds, stop every model, release everything."""
        if not hasattr(self, "front"):
            await self._release()
            return
        if self.leaving.done.is_set():
            # The models are the successor's.
            await self.front.close(self.settings.shutdown_grace)
            await self._release()
            log.info("daemon_left")
            return
        self._notifier.stopping("stopping models")
        grace = self.settings.shutdown_grace
        # Streams, then the models' own time to stop, then what is left of both.
        self._notifier.extend_timeout(grace + 2 * self.settings.start.stop_grace + 30)
        self.door.end_streams()  # pages that watch would hold up the stop for the whole grace
        # Together: an instance stops as soon as its last answer is out, and no answer waits for another.
        await asyncio.gather(self.front.close(grace), self.supervisor.shutdown(drain_grace=grace))
        await self._release()
        if not self.are_passed:
            remove_socket_files(self._addresses)
        log.info("daemon_stopped")

    def hurry(self) -> None:
        """Told a second time: cut what is open and kill what does not go."""
        if hasattr(self, "supervisor"):
            self.supervisor.hurry()

    async def _release(self) -> None:
        if hasattr(self, "heartbeat"):
            self.heartbeat.close()
        if hasattr(self, "front"):
            self.lag.close()
            self.rate.close()
            self.keys.close()
            self.storage.close()
            self.reloading.close()
            await self.endpoints.close()
            await self.live.close()
            await self.door.close()
            self.access_log.flush()
        if hasattr(self, "memory"):
            await asyncio.to_thread(self.memory.close)
        await self.tasks.close()
        if hasattr(self, "journal"):
            await asyncio.to_thread(self.journal.close)
        if hasattr(self, "state"):
            self.state.release()


def _merged(
    found: Catalog,
    kept: Mapping[ModelId, Model],
    served: Mapping[str, Sequence[ServedModel]],
    live: Mapping[ModelId, ServedModel],
) -> tuple[Catalog, Routes]:
    catalog = (found.keeping(kept) if kept else found).with_endpoints(served).with_live(live)
    return catalog, routes_of(catalog)


def _diagnose(model: Model, report: ExitReport) -> Diagnosis:
    code = report.code if report.signal is None else -report.signal
    return ENGINES[model.engine].diagnose(report.tail, code)
