"""The requests of an `Exchange` that are no plain inference: upgrades, and paths that name what they are
about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.capability import UPSTREAM, Endpoint
from router.heads import RequestHead
from router.plan import Planned, plan, plan_tunnel
from router.request import Bytes
from router.through import plan_through
from router.tunnel import Tunnel

if TYPE_CHECKING:
    from router.ports import Holder


class Special(Tunnel):
    """Where they go; an `Exchange` keeps everything that is named here."""

    __slots__ = ()

    head: RequestHead
    holder: Holder | None
    received: float

    def _begin_special(self, body: Bytes, endpoint: Endpoint) -> None:
        """The body of a request with a `special` head is complete. Raises as `plan` does."""
        head, directory, holder = self.head, self.shared.directory, self.holder
        if endpoint is UPSTREAM:
            planned = plan_through(body, head, directory, holder=holder)
        elif head.wants_websocket:
            planned = plan_tunnel(head, endpoint, directory, holder=holder)
        else:
            planned = plan(body, head, endpoint, directory, holder=holder)
        self._set_out(planned, self.received)

    def _set_out(self, found: Planned, now: float) -> None:
        """Send the request at once, if there is a lease and a connection; else find them."""
        raise NotImplementedError
