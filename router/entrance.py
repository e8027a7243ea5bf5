"""What is refused on a request's head alone, before a byte of its body is read."""

from __future__ import annotations

from router.exchange import Exchange
from router.heads import special_objection
from router.ports import Refusal


def objection_to(exchange: Exchange) -> Refusal | None:
    """Why it is refused; None, with its holder set, if it is let in."""
    head, shared = exchange.head, exchange.shared
    for_engine = exchange.endpoint is not None
    if not head.plain and b"origin" in head.headers:
        # Before the key is looked at: a browser that asks for leave may not show one.
        refusal = shared.cors.verdict(head, inference=for_engine)
        if refusal is not None:
            return refusal
    authorizer = shared.authorizer
    if authorizer is not None:
        verdict = authorizer(head)
        if isinstance(verdict, Refusal):
            return verdict
        exchange.holder = verdict
    return special_objection(head, for_engine=for_engine) if head.special else None
