"""What becomes of a request: its route, and the bytes its engine is to get. Pure but for the directory."""

from __future__ import annotations

from dataclasses import dataclass

from registry.capability import NO_NEEDS, Capability, Endpoint
from router.echo import ModelEcho
from router.heads import RequestHead
from router.ports import Directory, Holder, Route
from router.refused import RefusedError
from router.request import Bytes, read_json, read_multipart, rewritten


@dataclass(slots=True)
class Plan:
    """Everything that is known once the body has been read."""

    route: Route
    path: bytes
    """Path and query as the engine has it."""
    pieces: list[Bytes]
    """The body as the engine gets it."""
    streams: bool
    """The client asked for an event stream."""
    name: str
    """The model's name in the answer: the one asked for."""

    def echo(self) -> ModelEcho | None:
        """A filter that puts `name` into the answer; None if the engine says so by itself."""
        served = self.route.wire.served_name
        return None if self.name == served else ModelEcho(served, self.name)


def plan(
    body: Bytes, head: RequestHead, endpoint: Endpoint, directory: Directory, *, holder: Holder | None = None
) -> Plan:
    """Read *body*, find its route, and make it fit its engine.

    Raises `RefusedError` for what the body has wrong and for a model that *holder* may not use, and whatever
    *directory* raises.
    """
    content_type = head.headers.get(b"content-type", b"") if endpoint.multipart else b""
    if content_type[:19].lower() == b"multipart/form-data":
        asked = read_multipart(body, content_type)
    else:
        asked = read_json(body)
    name = asked.model
    route = directory.route(name, endpoint, holder)
    if holder is not None:
        objection = holder.objects_to(route.model)
        if objection is not None:
            raise RefusedError(objection)
    if route.check is not None and Capability.GENERATE in endpoint.needs:
        needs = route.check.read(body)
        if needs is not NO_NEEDS:
            route.check(needs, endpoint, holder)
    wire = route.wire
    pieces = [body]
    told = None if name == wire.served_name or name in wire.accepted_names else wire.served_name
    if told is not None or wire.strip_fields:
        pieces = rewritten(body, asked, model=told, strip=wire.strip_fields)
    path = endpoint.path
    if path in wire.unversioned:
        path = path.removeprefix("/v1")
    return Plan(
        route, path.encode() + head.query, pieces, asked.stream and endpoint.streams, name or route.model
    )
