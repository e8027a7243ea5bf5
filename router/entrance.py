"""What is refused on a request's head alone, before a byte of its body is read."""

from __future__ import annotations

from registry.capability import UPSTREAM
from router.exchange import Exchange
from router.heads import special_objection
from router.ports import Refusal
from router.refused import body_too_large
from router.through import objection_to_stranger


def objection_to(exchange: Exchange, length: int) -> Refusal | None:
    """Why it is refused; None, with its holder set, if it is let in. *length* is its body's, 0 if unknown."""
    head, shared = exchange.head, exchange.shared
    if not head.plain and b"origin" in head.headers:
        # Before the key is looked at: a browser that asks for leave may not show one.
        refusal = shared.cors.verdict(head, inference=head.endpoint is not None)
        if refusal is not None:
            return refusal
    authorizer = shared.authorizer
    if authorizer is not None:
        verdict = authorizer(head)
        if isinstance(verdict, Refusal):
            return verdict
        exchange.holder = verdict
    if head.special:
        refusal = special_objection(head, length)
        if refusal is None and head.endpoint is UPSTREAM:
            refusal = objection_to_stranger(head, exchange.holder, shared.stranger)
        if refusal is not None:
            return refusal
    if length > shared.limits.body_bytes:
        return body_too_large(shared.limits.body_bytes)
    return None
