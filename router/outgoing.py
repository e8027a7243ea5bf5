"""What goes to an engine or to the control app: a head, and the relay that expects the answer. Pure."""

from __future__ import annotations

from router.heads import RequestHead, control_head, engine_head, tunnel_head
from router.openai import Face
from router.plan import Plan
from router.ports import Lease
from router.relay import Relay
from router.shared import Shared


def to_control(
    shared: Shared, head: RequestHead, *, size: int, request_id: bytes, own: bytes
) -> tuple[bytes, Relay]:
    """For the control app, whose answers are not touched."""
    relay = Relay(shared.control_heads, model="control", face=None, minor=head.minor, own=own)
    relay.bodyless = head.method == b"HEAD"
    return control_head(head, length=size, request_id=request_id), relay


def to_engine(
    shared: Shared, head: RequestHead, planned: Plan, lease: Lease, *, face: Face, size: int,
    request_id: bytes, own: bytes,
) -> tuple[bytes, Relay]:  # fmt: skip
    """For the engine of *lease*."""
    route = planned.route
    relay = Relay(shared.engine_heads, model=route.model, face=face, minor=head.minor, own=own)
    relay.expects_done = route.wire.sends_done
    if planned.shared:
        relay.as_it_is = True
    elif planned.tunnel:
        relay.upgrades = True
        address = f"{lease.host}:{lease.port}".encode()
        return tunnel_head(head, planned.path, address, key=lease.key, request_id=request_id), relay
    else:
        if planned.others is not None:
            relay.yields = planned.others.statuses()
        relay.echo = planned.echo()
    first = engine_head(head, (lease.host, lease.port, lease.key, planned.path))
    return b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (first, request_id, size), relay
