"""What goes to an engine or to the control app: a head, and the relay that expects the answer. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.heads import RequestHead, control_head, engine_head, free_head, tunnel_head
from router.kept import Kept, ResponseRelay
from router.plan import Plan
from router.ports import Lease
from router.relay import Relay
from router.shared import Shared

if TYPE_CHECKING:
    from router.exchange import Exchange


def to_control(
    shared: Shared, head: RequestHead, size: int, id_line: bytes, own: bytes
) -> tuple[bytes, Relay]:
    """For the control app, whose answers are not touched. *id_line* is the field of the request's id, without
    its CRLF; *own*: as `Relay`'s."""
    relay = Relay(shared.control_heads, model="control", face=None, minor=head.minor, own=own)
    relay.bodyless = head.method == b"HEAD"
    return control_head(head, length=size, id_line=id_line), relay


def to_engine(
    exchange: Exchange, planned: Plan, lease: Lease, size: int, id_line: bytes
) -> tuple[bytes, Relay]:
    """For the engine of *lease*."""
    head, relay = exchange.head, relay_for(exchange, planned, lease)
    if planned.tunnel:
        address = f"{lease.host}:{lease.port}".encode()
        return tunnel_head(head, planned.path, address, key=lease.key, id_line=id_line), relay
    target = (lease.host, lease.port, lease.key, planned.path)
    if planned.method:
        return free_head(head, target, length=size, id_line=id_line), relay
    first = engine_head(head, target)
    return b"%b%b\r\ncontent-length: %d\r\n\r\n" % (first, id_line, size), relay


def relay_for(exchange: Exchange, planned: Plan, lease: Lease) -> Relay:
    """What passes the engine's answer on."""
    head, route = exchange.head, planned.route
    if planned.makes_response:
        relay = _response_relay(exchange, planned, lease)
    else:
        heads = exchange.shared.engine_heads
        relay = Relay(heads, model=route.model, face=head.face, minor=head.minor, own=exchange.own)
    relay.expects_done = route.wire.sends_done
    if planned.shared:
        relay.as_it_is = True
    elif planned.tunnel:
        relay.upgrades = True
    elif planned.raw:
        relay.face = None
    else:
        if planned.others is not None:
            relay.yields = planned.others.statuses()
        relay.echo = planned.echo()
    if planned.method:
        relay.bodyless = head.method == b"HEAD"
    return relay


def _response_relay(exchange: Exchange, planned: Plan, lease: Lease) -> Relay:
    """For an answer that the engine may keep."""
    shared, head, holder = exchange.shared, exchange.head, exchange.holder
    relay = ResponseRelay(
        shared.engine_heads, model=planned.route.model, face=head.face, minor=head.minor, own=exchange.own
    )
    key = "" if holder is None else holder.key
    relay.remember(shared.kept, Kept(planned.route, lease.generation, planned.name, key))
    return relay
