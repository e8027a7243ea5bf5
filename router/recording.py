"""What is known of a request when it is over, for the log and the metrics. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.cors import PREFLIGHT
from router.plan import Plan
from router.ports import Outcome, RefusedRecord, RequestRecord
from router.relay import Relay

if TYPE_CHECKING:
    from router.exchange import Exchange

_SERVED = Outcome.SERVED


def record_of(
    exchange: Exchange, relay: Relay | None, planned: Plan | None, *, outcome: Outcome | None, code: str,
    now: float,
) -> RequestRecord:  # fmt: skip
    """*outcome* None: it was refused; it is over at *now*."""
    head, holder = exchange.head, exchange.holder
    kind = RequestRecord
    if outcome is _SERVED:
        word = "control" if head.endpoint is None else "served"
    elif outcome is not None:
        word = outcome.value
    elif code == PREFLIGHT:
        word, code = "control", ""
    else:
        word, kind = "refused", RefusedRecord
    record = kind(
        exchange.request_id, head.verb, head.path, exchange.side.client,
        "" if planned is None else planned.route.model, exchange.status, word, code,
        bytes_in=exchange.bytes_in, bytes_out=exchange.bytes_out,
        total=now - exchange.started, retried=exchange.retried,
        key="" if holder is None else holder.key, trace=head.trace,
    )  # fmt: skip
    if exchange.leased_at:
        record.waited = exchange.leased_at - exchange.received
    if relay is not None and relay.started:
        record.first_byte = exchange.first_byte_at - exchange.received
        record.streamed = relay.events
        if planned is not None:
            record.prompt_tokens, record.completion_tokens = relay.usage()
    return record
