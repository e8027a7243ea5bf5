"""`/upstream/<id>/…`: what is asked of one model's server goes to it as it is. Pure but for the directory.

The engine starts for it and is leased while it answers, as for any request; nothing in the answer is touched.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from registry.capability import below_upstream
from registry.passing import may_pass
from router.heads import RequestHead
from router.plan import Plan, Planned
from router.ports import Directory, Holder, Refusal, Stranger
from router.refused import RefusedError, bad_request, not_by_session, path_not_passed, slash_missing
from router.request import Bytes

_FIELDS: Final = (b"host", b"origin", b"sec-fetch-site")
"""What tells a web page of another site from a program."""
_NOT_PLAIN: Final = re.compile(r"//|(?:^|/)\.\.?(?:/|$)|[\\\x00-\x1f\x7f]")
"""Two readers may not agree on which path that is."""


def objection_to_stranger(
    head: RequestHead, holder: Holder | None, stranger: Stranger | None
) -> Refusal | None:
    """Why *head* is not let through on behalf of *holder*; None if it is."""
    if holder is not None and holder.by_cookie:
        # A page of the engine's would speak for whoever is logged in here.
        return not_by_session()
    if stranger is None:
        return None
    fields = {name.decode().title(): head.headers.get(name) for name in _FIELDS}
    told = {name: value.decode("latin-1") for name, value in fields.items() if value is not None}
    # Whatever the method, it may start a model: nothing here is as harmless as a GET of the control app's.
    return stranger("POST", told)


def plan_through(
    body: Bytes, head: RequestHead, directory: Directory, *, holder: Holder | None = None
) -> Planned:
    """The plan that sends a request to the server of the model that its path names.

    Raises `RefusedError` for a model that *holder* may not use and for a path that is not passed, and
    whatever *directory* raises.
    """
    route, rest = directory.below(below_upstream(head.path), holder)
    objection = None if holder is None else holder.objects_to(route.model)
    if objection is not None:
        raise RefusedError(objection)
    if not rest and head.verb in ("GET", "HEAD"):
        # Relative links of a page would lead to another model.
        raise RefusedError(slash_missing(head.path + "/" + head.query.decode("latin-1")))
    path = rest or "/"
    decoded = unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "replace")
    if _NOT_PLAIN.search(decoded) is not None:
        raise RefusedError(bad_request("a path below /upstream has no empty, `.` or `..` part"))
    if not may_pass(decoded, route.wire.passes):
        raise RefusedError(path_not_passed(route.model, decoded))
    planned = Plan(
        route, path.encode("latin-1") + head.query, streams=False, name=route.model,
        tunnel=head.wants_websocket, method=head.method, raw=True,
    )  # fmt: skip
    return planned, [body]
