"""The commonest answer in the fewest steps: it comes whole in one read, and passes as it is.

All of this could be left out: a `Relay` and `Exchange` do the same for any answer, in twice the steps. An
exchange looks here first, where its plan is `plain`, and makes its relay only if this is no such answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from router.head_cache import again
from router.heads import END, engine_head
from router.outgoing import relay_for
from router.plan import Plan
from router.ports import Lease, Outcome, RequestRecord
from router.relay import CLOSING, Relay
from router.special import Special
from router.tail import usage_in
from router.upstream import UpstreamConnection

if TYPE_CHECKING:
    from router.exchange import Exchange

JOINED = 65536
"""Bytes: a body up to this size goes out in one piece with its head."""
_SERVED = Outcome.SERVED


class AtOnce(Special):
    """How it passes; an `Exchange` keeps everything that is named here."""

    __slots__ = (
        "_first_byte_due", "_id_line", "_relay", "_up", "_whole_due", "bytes_out", "over", "own",
        "request_id", "retried", "started", "status",
    )  # fmt: skip

    bytes_out: int
    over: bool
    own: bytes
    request_id: str
    retried: bool
    started: float
    status: int
    _first_byte_due: float
    _id_line: bytes
    _relay: Relay | None

    def _await_first_byte(self, planned: Plan) -> float:
        """The request is being sent: until when the engine may be silent."""
        limits = self.shared.limits
        due = self.leased_at + (planned.route.wire.first_byte_timeout or limits.first_byte_timeout)
        if limits.answer_timeout:
            self._whole_due = self.received + limits.answer_timeout
            due = min(due, self._whole_due)
        self.side.deadline = self._first_byte_due = due
        return due

    def _send_plainly(self, up: UpstreamConnection, planned: Plan, lease: Lease) -> None:
        """`Exchange.send`, where the body goes as it came and nothing is expected of the answer."""
        head, body, limits = self.head, self._pieces[0], self.shared.limits
        if limits.answer_timeout:
            self._await_first_byte(planned)
        else:
            due = self.leased_at + (planned.route.wire.first_byte_timeout or limits.first_byte_timeout)
            self.side.deadline = self._first_byte_due = due
        target = (lease.host, lease.port, lease.key, planned.path)
        sent = head.sent if head.sent_to == target else engine_head(head, target)
        first = b"%b%b\r\ncontent-length: %d\r\n\r\n" % (sent, self._id_line, len(body))
        if len(body) <= JOINED:
            up.write(first + body)
        else:
            up.write(first)
            up.write(body)
        if self._paused:
            up.transport.pause_reading()

    def _passed_at_once(self, data: bytes) -> bool:
        """Pass *data* on and end, if it is all of the answer, and the engine says what it said before on
        this connection; False, with nothing done, if it is anything else."""
        up, lease, planned = self._up, self.lease, self._plan
        if up is None or lease is None or planned is None or self._paused or self.charged or self.buffer:
            return False
        said = up.last_head
        found = None if said is None or not said.plain else again(said, data)
        if said is None or found is None:
            return False
        start, length = found
        if length is None or len(data) != start + length:
            return False
        shared, side, head, holder = self.shared, self.side, self.head, self.holder
        now, close, body = shared.now(), head.close or side.closing, data[start:]
        out = b"%b%b\r\ncontent-length: %d%b%b" % (
            said.opening, self.own, length, CLOSING if close else END, body,
        )  # fmt: skip
        self.over = True  # whatever goes wrong from here on, nothing else may be answered
        side.write(out)
        self._up = None
        if said.keep_alive and up.transport.get_write_buffer_size() == 0:
            if self._paused:
                up.transport.resume_reading()
            shared.pool.give(up, now)
        else:
            up.drop()
        # What `Exchange` does at its end, where nothing else is held.
        self.status = said.status
        self.bytes_out += len(out)
        self.lease = None
        lease.release(_SERVED)
        if holder is not None:
            holder.leave()
        if self._reach is not None:
            self._reach.cancel()
        shared.exchange_ended()
        received, key = self.received, "" if holder is None else holder.key
        prompt_tokens, completion_tokens = usage_in(body, events=said.is_events)
        shared.recorder(
            RequestRecord(
                self.request_id, head.verb, head.path, side.client, planned.route.model, said.status,
                "served", "", said.is_events, self.bytes_in, self.bytes_out,
                self.leased_at - received, now - received, now - self.started,
                prompt_tokens, completion_tokens, self.retried, key, head.trace,
            )
        )  # fmt: skip
        side.answered(keep=not close, now=now)
        return True

    def _expect(self) -> Relay:
        """The relay of an answer that does not pass at once."""
        up, lease, planned = self._up, self.lease, self._plan
        assert up is not None  # a taker only while a request is on the connection,
        assert lease is not None  # and without a relay only if its plan is plain
        assert planned is not None
        relay = self._relay = relay_for(cast("Exchange", self), planned, lease)
        relay.expected = up.last_head
        relay.close = self.head.close or self.side.closing
        return relay
