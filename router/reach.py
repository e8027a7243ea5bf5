"""The slow way to an engine: waiting for a lease, connecting, and the one retry. Made only when there is no
fast way.

What may be tried again, and how often, as long as no byte of an answer has come:

| what happened                                  | then                                                    |
| a kept connection was lost                     | the same lease, a fresh connection (once)               |
| that connection is refused                     | the engine died with the request: counts as a crash     |
| a connection is refused                        | lease back, a fresh lease (once)                        |
| a fresh connection was lost with the request   | a crash: lease back, a fresh lease; at the second: 502  |
| any of these while an operator unloads it      | 503: another try would start it again                   |
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from router import refused
from router.ports import Outcome, Route
from router.upstream import UpstreamConnection

if TYPE_CHECKING:
    from router.exchange import Exchange

log = structlog.get_logger("modelyard.front")


class Reach:
    """Brings one exchange to a connection, in a task of its own; calls `Exchange.send`, or refuses."""

    __slots__ = (
        "_exchange", "_lost_kept", "_lost_kept_once", "_refused_once", "_route", "_task", "crashes", "waits",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, route: Route | None) -> None:
        """*route* None is the control app."""
        self._exchange = exchange
        self._route = route
        self._task: asyncio.Task[None] | None = None
        self._lost_kept = False
        self._lost_kept_once = False
        self._refused_once = False
        self.crashes = 0
        """Times the engine went away with the whole request in hand."""
        self.waits = False
        """No lease yet."""

    def begin(self) -> None:
        """Set out for a lease, if the exchange has none, and a connection."""
        work = self._to_control() if self._route is None else self._to_engine(self._route)
        self._task = self._exchange.shared.spawn(work, name="front-reach")

    def cancel(self) -> None:
        """Nobody waits any more: give the place in the queue back."""
        self.end_waiting()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def begin_waiting(self) -> None:
        """Counted, and kept alive, until there is a lease."""
        if not self.waits:
            self.waits = True
            self._exchange.shared.counters.waiting += 1
            self._exchange.expect_beats()

    def end_waiting(self) -> None:
        """There is a lease, or an end."""
        if self.waits:
            self.waits = False
            self._exchange.shared.counters.waiting -= 1

    def lost(self, up: UpstreamConnection) -> None:
        """*up* went away with the request and without a byte of an answer: try again, or refuse."""
        exchange = self._exchange
        if self._route is None:
            exchange.refuse(refused.bad_answer("the control app", "it ended without an answer"))
            return
        if self._revoked():
            return
        if up.reused and not self._lost_kept_once:
            # Most likely the engine closed a connection it had kept long enough. The lease is still good.
            self._lost_kept = self._lost_kept_once = True
        else:
            self.crashes += 1
            exchange.give_lease(Outcome.UPSTREAM_FAILED)
            if self.crashes >= 2:
                exchange.refuse(refused.engine_crashed(self._route.model))
                return
        exchange.note_retry()
        self.begin()

    def _revoked(self) -> bool:
        """True, with the request refused, where an operator took the instance away."""
        exchange, route = self._exchange, self._route
        if route is None or exchange.lease is None or not exchange.lease.revoked:
            return False
        exchange.give_lease(Outcome.ABANDONED)
        exchange.refuse(refused.unloaded(route.model))
        return True

    async def _to_engine(self, route: Route) -> None:
        exchange = self._exchange
        shared = exchange.shared
        try:
            while True:
                lease = exchange.lease
                if lease is None:
                    self.begin_waiting()
                    lease = await shared.upstreams.lease(
                        route,
                        request=exchange.request_id,
                        priority=0 if exchange.holder is None else exchange.holder.priority,
                    )
                    self.end_waiting()
                    exchange.leased(lease)
                up = None if self._lost_kept else shared.pool.take(lease, shared.now())
                if up is None:
                    try:
                        up = await shared.pool.connect(lease)
                    except OSError as error:
                        if not self._may_try_again(error, route):
                            return
                        continue
                self._lost_kept = False
                self._task = None
                exchange.send(up)
                return
        except Exception as error:  # noqa: BLE001  Refusals is total, and nothing may be left unanswered
            self.end_waiting()
            exchange.refuse(shared.refusals(error))

    def _may_try_again(self, error: OSError, route: Route) -> bool:
        """After a connection that could not be made; False if the request has been refused."""
        exchange = self._exchange
        if self._revoked():
            return False
        exchange.give_lease(Outcome.UPSTREAM_FAILED)
        if self._lost_kept:
            self._lost_kept = False
            self.crashes += 1
        if self.crashes >= 2:
            exchange.refuse(refused.engine_crashed(route.model))
            return False
        if self._refused_once:
            exchange.refuse(refused.engine_unreachable(route.model, str(error) or type(error).__name__))
            return False
        self._refused_once = True
        exchange.note_retry()
        return True

    async def _to_control(self) -> None:
        exchange = self._exchange
        shared = exchange.shared
        try:
            await shared.control_turns.mine()
            up = await shared.pool.adopt(shared.control.open(exchange.side.client, exchange.holder))
            self._task = None
            exchange.send(up)
        except Exception as error:  # noqa: BLE001  Refusals is total, and nothing may be left unanswered
            exchange.refuse(shared.refusals(error))
