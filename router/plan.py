"""What becomes of a request: its route, and the bytes its engine is to get. Pure but for the directory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode

from registry.capability import GENERATES, NO_NEEDS, RESPONSES, Endpoint
from router.call_text import Shapes
from router.echo import AnswerFilter, ModelEcho
from router.edits import NO_EDITS
from router.heads import RequestHead
from router.keep_alive import MEMBER, seconds_of
from router.ports import Directory, Holder, Refusal, Route
from router.refused import RefusedError, bad_request
from router.request import Asked, Bytes, read_json, read_multipart, rewritten
from router.tool_calls import ToolCallFilter, tools_of

_QUERY_FIELDS = 32
"""Of an upgrade; OpenAI's has two."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is known once the body has been read, but the body itself: requests that go as they
    came share one."""

    route: Route
    path: bytes
    """Path and query as the engine has it."""
    streams: bool
    """The client asked for an event stream."""
    name: str
    """The model's name in the answer: the one asked for; of a virtual name, the model that answers."""
    others: Others | None = None
    """Who is asked instead, of a virtual name; None: nobody."""
    tunnel: bool = False
    """Both sides will speak past us."""
    tools: Shapes | None = None
    """The request's tools, where calls of them must be looked for in the answer's text."""
    keep_alive: float | None = None
    """Seconds that the model is to stay after it; None: it does not say."""
    method: bytes = b""
    """The client's own, where it need not be POST: the head for the engine is made for this request alone."""
    makes_response: bool = False
    """Its engine may keep the answer: who has it is remembered."""
    raw: bool = False
    """The answer is not touched, not even an error."""
    shared: bool = False
    """Nothing is changed, neither in the request nor in the answer."""
    plain: bool = False
    """Nor is anything in the answer looked for."""

    def echo(self) -> AnswerFilter | None:
        """A filter that puts `name` and tool calls into the answer; None if the engine does it itself."""
        wire = self.route.wire
        echo = None if self.name == wire.served_name else ModelEcho(wire.served_name, self.name)
        if self.tools is None or wire.calls is None:
            return echo
        return ToolCallFilter(wire.calls, self.tools, echo=echo)


Planned = tuple[Plan, list[Bytes]]
"""A plan, and the body as the engine gets it."""


@dataclass(slots=True)
class _Request:
    """A request once its body has been read."""

    body: Bytes
    head: RequestHead
    endpoint: Endpoint
    asked: Asked


_TOOL_FIELDS: Final = ("tools", "tool_choice", "parallel_tool_calls")
_BUSY: Final = frozenset({"queue_full", "wait_timeout", "buffer_full"})
_BUSY_STATUSES: Final = frozenset({429, 503})
_FAILED_STATUSES: Final = frozenset({500, 502, 504, 507})


@dataclass(frozen=True, slots=True)
class Others:
    """Models that may answer instead of the one that is asked first, as long as no byte was answered."""

    request: _Request
    routes: tuple[Route, ...]
    """Best first; not empty."""
    on: frozenset[str]
    """`failure`, `overload`, or both."""

    def statuses(self) -> frozenset[int]:
        """Answers of an engine that are not passed on, since the next one is asked."""
        busy = _BUSY_STATUSES if "overload" in self.on else frozenset()
        return busy | (_FAILED_STATUSES if "failure" in self.on else frozenset())

    def after(self, refusal: Refusal) -> Planned | None:
        """What is done when *refusal* would be the answer; None: it is the answer."""
        if refusal.code == "shutting_down" or refusal.status not in _BUSY_STATUSES | _FAILED_STATUSES:
            return None
        engine_is_full = refusal.code == "engine_error" and refusal.status in _BUSY_STATUSES
        why = "overload" if engine_is_full or refusal.code in _BUSY else "failure"
        if why not in self.on:
            return None
        return _first_of(self.routes, self.request, self.on)


def plan(
    body: Bytes, head: RequestHead, endpoint: Endpoint, directory: Directory, *, holder: Holder | None = None
) -> Planned:
    """Read *body*, find its route, and make it fit its engine.

    Raises `RefusedError` for what the body has wrong and for a model that *holder* may not use, and whatever
    *directory* and a route's check raise.
    """
    if endpoint.multipart and _is_form(head):
        asked = read_multipart(body, head.headers[b"content-type"])
    else:
        asked = read_json(body)
    generates = endpoint.needs is GENERATES
    found = directory.route(asked.model, endpoint, holder)
    if not isinstance(found, Route):
        chosen = found(found.read(body) if generates else NO_NEEDS, endpoint, holder)
        return _first_of(chosen.routes, _Request(body, head, endpoint, asked), chosen.on)
    if holder is not None:
        objection = holder.objects_to(found.model)
        if objection is not None:
            raise RefusedError(objection)
    if found.check is not None and generates:
        needs = found.check.read(body)
        if needs is not NO_NEEDS:
            found.check(needs, endpoint, holder)
    known: Plan | None = found.plans.get((endpoint.path, asked.model, asked.stream))
    if known is not None and asked.keep_alive is None and not head.query:
        return known, [body]
    planned = _fitted(found, _Request(body, head, endpoint, asked), asked.model or found.model)
    if planned[0].shared:
        # A name the engine knows, and an endpoint: there are few of these.
        found.plans[endpoint.path, asked.model, asked.stream] = planned[0]
    return planned


def _is_form(head: RequestHead) -> bool:
    return head.headers.get(b"content-type", b"")[:19].lower() == b"multipart/form-data"


def _first_of(routes: tuple[Route, ...], request: _Request, on: frozenset[str]) -> Planned:
    """The plan that sends *request* to the first of *routes*, and then to the others."""
    route, *rest = routes
    others = Others(request, tuple(rest), on) if rest and on else None
    return _fitted(route, request, route.model, others)


def _fitted(route: Route, request: _Request, name: str, others: Others | None = None) -> Planned:
    """The plan that sends *request* to *route*; the answer's model is called *name*."""
    wire, asked, endpoint = route.wire, request.asked, request.endpoint
    pieces = [request.body]
    told = None if asked.model == wire.served_name or asked.model in wire.accepted_names else wire.served_name
    edits = NO_EDITS if route.edits is None or not endpoint.needs else route.edits
    strip, tools, keep_alive = wire.strip_fields, None, None
    if asked.keep_alive is not None and not wire.own_keep_alive and MEMBER not in edits.strip:
        # Ours: engines refuse it, or ignore it with a line in the log for each request.
        keep_alive = seconds_of(asked.keep_alive)
        strip = (*strip, MEMBER)
    if wire.calls is not None and endpoint.path == "/v1/chat/completions":
        tools = tools_of(request.body)
        if tools is None and wire.calls == "harmony":
            tools = {}  # its channels are in every answer
        elif tools is not None and wire.hides_tools:
            strip = (*strip, *_TOOL_FIELDS)
    plain = told is None and not strip and edits is NO_EDITS
    if not plain:
        pieces = rewritten(request.body, asked, model=told, strip=strip, edits=edits)
    path = endpoint.path
    if path in wire.unversioned:
        path = path.removeprefix("/v1")
    plain = plain and wire.calls is None and name == wire.served_name and asked.keep_alive is None
    shared = plain and not request.head.query and others is None
    planned = Plan(
        route, path.encode() + request.head.query, asked.stream and endpoint.streams, name,
        others=others, tools=tools, keep_alive=keep_alive, makes_response=endpoint is RESPONSES,
        shared=shared, plain=shared and endpoint is not RESPONSES,
    )  # fmt: skip
    return planned, pieces


def plan_tunnel(
    head: RequestHead, endpoint: Endpoint, directory: Directory, *, holder: Holder | None = None
) -> Planned:
    """The same for an upgrade, whose model stands in the query. Raises as `plan`."""
    try:
        text = head.query[1:].decode("latin-1")
        query = parse_qsl(text, keep_blank_values=True, max_num_fields=_QUERY_FIELDS)
    except ValueError:
        raise RefusedError(bad_request(f"the query has more than {_QUERY_FIELDS} fields")) from None
    names = [value for key, value in query if key == "model"]
    if len(names) > 1:
        raise RefusedError(
            bad_request("the query has more than one `model`", code="duplicate_model", param="model")
        )
    name = names[0] if names else None
    found = directory.route(name, endpoint, holder)
    route = found if isinstance(found, Route) else found(NO_NEEDS, endpoint, holder).routes[0]
    objection = None if holder is None else holder.objects_to(route.model)
    if objection is not None:
        raise RefusedError(objection)
    wire = route.wire
    told = name if name in wire.accepted_names else wire.served_name
    rest = [(key, value) for key, value in query if key != "model"]
    path = endpoint.path + "?" + urlencode([("model", told), *rest])
    return Plan(route, path.encode(), streams=False, name=name or route.model, tunnel=True), []
