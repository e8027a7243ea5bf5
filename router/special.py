"""The requests of an `Exchange` that are no plain inference: upgrades, and paths that name what they are
about."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from registry.capability import KEPT_RESPONSE, RESPONSES, UPSTREAM, Endpoint, kept_response
from router.charged import Charged
from router.heads import RequestHead
from router.plan import Plan, Planned, plan, plan_tunnel
from router.ports import Holder, Lease, Outcome, Route
from router.reach import Reach
from router.refused import RefusedError, not_by_session, response_gone, response_unknown
from router.request import Bytes
from router.through import plan_through
from router.upstream import UpstreamConnection

if TYPE_CHECKING:
    from router.exchange import Exchange


class KeeperReach(Reach):
    """Asks the incarnation that has a response, and no other one: where there is no way to it, it is gone."""

    __slots__ = ("_asked", "_response")

    def __init__(self, exchange: Exchange, route: Route, response: str) -> None:
        super().__init__(exchange, route)
        self._asked = exchange
        self._response = response

    def lost(self, up: UpstreamConnection) -> None:
        """See `Reach`: a kept connection may only have been kept for too long."""
        if up.reused and not self._lost_kept_once:
            super().lost(up)
        elif self._route is not None:
            self._gone(self._route)

    def _may_try_again(self, error: OSError, route: Route) -> bool:
        self._gone(route)
        return False

    def _gone(self, route: Route) -> None:
        self._asked.give_lease(Outcome.UPSTREAM_FAILED)
        self._asked.refuse(response_gone(self._response, route.model))


class Special(Charged):
    """Where they go; an `Exchange` keeps everything that is named here."""

    __slots__ = ("_reach", "lease", "leased_at")

    head: RequestHead
    holder: Holder | None
    received: float
    lease: Lease | None
    leased_at: float
    _reach: Reach | None

    def _begin_special(self, body: Bytes, endpoint: Endpoint) -> None:
        """The body of a request with a `special` head is complete. Raises as `plan` does."""
        head, directory, holder = self.head, self.shared.directory, self.holder
        if endpoint is KEPT_RESPONSE:
            self._ask_keeper(body)
            return
        if endpoint is UPSTREAM:
            planned = plan_through(body, head, directory, holder=holder)
        elif head.wants_websocket:
            planned = plan_tunnel(head, endpoint, directory, holder=holder)
        else:
            if endpoint is RESPONSES and holder is not None:
                objection = self.shared.kept.objects_to(body, holder)
                if objection is not None:
                    raise RefusedError(objection)
            planned = plan(body, head, endpoint, directory, holder=holder)
        self._set_out(planned, self.received)

    def _ask_keeper(self, body: Bytes) -> None:
        """Send a request about a response to the incarnation that has it, or to nobody."""
        head, shared = self.head, self.shared
        response, path = kept_response(head.path)
        if self.holder is not None and self.holder.by_cookie:
            raise RefusedError(not_by_session())
        kept = shared.kept.find(response, self.holder)
        if kept is None:
            raise RefusedError(response_unknown(response))
        route, now = kept.route, self.received
        objection = None if self.holder is None else self.holder.objects_to(route.model)
        if objection is not None:
            raise RefusedError(objection)
        lease = shared.upstreams.lease_of(route, kept.generation)
        if lease is None:
            raise RefusedError(response_gone(response, route.model))
        self._plan = Plan(
            route, path.encode() + head.query, streams=False, name=kept.name, method=head.method
        )
        self._pieces = [body]
        self.lease = lease
        self.leased_at = now
        self._reach = KeeperReach(cast("Exchange", self), route, response)
        up = shared.pool.take(lease, now)
        if up is not None:
            self.send(up)
        else:
            self._reach.begin()

    def send(self, up: UpstreamConnection) -> None:
        """Write the whole request to *up*; from here on callbacks drive the exchange."""
        raise NotImplementedError

    def _set_out(self, found: Planned, now: float) -> None:
        """Send the request at once, if there is a lease and a connection; else find them."""
        raise NotImplementedError
