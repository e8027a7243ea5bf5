"""One request's way: from its whole body to its last byte, on every path exactly one end.

    begin ── route ── lease_now ── pooled connection ── send ── answer_data … ── end
       │                  └───────────────┴── Reach (a task: lease, connect, retry) ──► send
       └── control app ───────────────────────┘

A warm request stays in `def`s from its last byte to the write to the engine: no task, no await, no timer.
"""

from __future__ import annotations

import structlog

from router import outgoing, refused
from router.answers import refusal_answer
from router.at_once import JOINED, AtOnce
from router.client_side import ClientSide
from router.drain import Drain
from router.ending import End
from router.heads import RequestHead
from router.patience import said_by
from router.plan import Plan, Planned, plan
from router.ports import Holder, Lease, Outcome, Refusal
from router.reach import Reach
from router.recording import record_of
from router.relay import Relay
from router.request import Bytes
from router.shared import Shared
from router.upstream import UpstreamConnection
from router.waiting import Beats, beats_for
from router.wheel import NEVER

log = structlog.get_logger("modelyard.front")

_CLIENT_CLOSED = 499
"""What the log shows for a client that left before there was a status."""
_SERVED = Outcome.SERVED
_COMPLETE = End.COMPLETE


class Exchange(AtOnce):
    """A request and its answer. Once `over`, nothing of it is held anywhere."""

    __slots__ = (
        "_beats", "_patience_due", "_paused",
        "first_byte_at", "head", "holder",
        "received", "shared", "side",
    )  # fmt: skip

    def __init__(self, shared: Shared, side: ClientSide, head: RequestHead) -> None:
        self.shared = shared
        self.side = side
        self.head = head
        self.tunnelled = False
        """Both sides speak past us: it was upgraded."""
        self.request_id = head.given_id or shared.request_id()
        self._id_line = self.own = b"x-request-id: " + self.request_id.encode()
        """Fields of ours in the answer, the last without its CRLF."""
        if not head.plain and b"origin" in head.headers:
            self.own += shared.cors.fields(head)
        self.holder: Holder | None = None
        self.lease: Lease | None = None
        self.over = False
        self.buffer: bytearray | None = None
        """The reused buffer the body lies in."""
        self.charged = 0
        """Bytes of the body counted in the budget, and against the model's share."""
        self._charged_model = 0
        self.bytes_in = self.bytes_out = 0
        self._plan: Plan | None = None
        self._pieces: list[Bytes] = []
        """The body as it is sent; kept until it cannot be needed for another try."""
        self._relay: Relay | None = None
        self._reach: Reach | None = None
        self._up: UpstreamConnection | None = None
        self._beats: Beats | None = None
        """Signs of life for a streaming client that waits."""
        self._paused = self.retried = False
        self.status = 0
        self.started = self.received = shared.now()
        self.leased_at = self._first_byte_due = self.first_byte_at = 0.0
        self._patience_due = self._whole_due = NEVER
        """When a client that waits in silence is told to come again; when the answer must be over."""
        counters = shared.counters
        counters.in_flight += 1
        counters.requests_total += 1

    def __repr__(self) -> str:
        return f"<Exchange {self.request_id} {self.head.path} over={self.over} lease={self.lease!r}>"

    # -- in ----------------------------------------------------------------------------------------

    def begin(self, body: Bytes) -> None:
        """The body is complete, since `received`: find out where it goes, and send it."""
        shared, head, now = self.shared, self.head, self.received
        self.bytes_in = len(body)
        self.side.deadline = NEVER
        endpoint = head.endpoint
        if endpoint is None:  # the control app's
            self._pieces = [body]
            self._reach = Reach(self, None)
            self._reach.begin()
            return
        try:
            if head.special:
                self._begin_special(body, endpoint)
                return
            planned = plan(body, head, endpoint, shared.directory, holder=self.holder)
        except refused.RefusedError as error:
            self.refuse(error.refusal)
        except Exception as error:  # noqa: BLE001  Refusals is total, and nothing may be left unanswered
            self.refuse(shared.refusals(error))
        else:
            self._set_out(planned, now)

    def _set_out(self, found: Planned, now: float) -> None:
        """Send the request at once, if there is a lease and a connection; else find them."""
        planned, self._pieces = found
        self._plan = planned
        shared, up = self.shared, None
        try:
            lease = self.lease = shared.upstreams.lease_now(planned.route)
        except Exception as error:  # noqa: BLE001  Refusals is total, and nothing may be left unanswered
            self.refuse(shared.refusals(error))
            return
        if lease is not None:
            self.leased_at = now
            up = shared.pool.take(lease, now)
        if up is not None:
            self.send(up)
        elif lease is not None or self._charge(planned):
            reach = self._reach = Reach(self, planned.route)
            if lease is None:
                reach.begin_waiting()
            reach.begin()

    # -- sending -----------------------------------------------------------------------------------

    def leased(self, lease: Lease) -> None:
        """`Reach` has got a lease."""
        self.lease = lease
        self.leased_at = self.shared.now()
        self.side.deadline = NEVER

    def send(self, up: UpstreamConnection) -> None:
        """Write the whole request to *up*; from here on callbacks drive the exchange."""
        planned, lease, beats = self._plan, self.lease, self._beats
        self._up = up
        up.taker = self
        if planned is not None and lease is not None and planned.plain and beats is None:
            self._send_plainly(up, planned, lease)
            return
        head, side = self.head, self.side
        shared, id_line, pieces = self.shared, self._id_line, self._pieces
        size = len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        if planned is None or lease is None:
            first, relay = outgoing.to_control(shared, head, size, id_line, self.own)
            side.deadline = NEVER  # the control app has deadlines of its own
        else:
            due = self._await_first_byte(planned)
            first, relay = outgoing.to_engine(self, planned, lease, size, id_line)
            if relay.as_it_is:
                relay.expected = up.last_head
            if planned.keep_alive is not None:
                lease.keep(planned.keep_alive)
            if beats is not None and beats.committed:
                relay.promise(events=not beats.plain)
                side.deadline = min(due, shared.now() + shared.limits.comment_every)
        relay.close = head.close or side.closing
        self._relay = relay
        if size <= JOINED:
            up.write(first + pieces[0] if len(pieces) == 1 else b"".join((first, *pieces)))
        else:
            up.write(first)
            for piece in pieces:
                up.write(piece)
        if self._paused:
            up.transport.pause_reading()

    # -- the answer --------------------------------------------------------------------------------

    def answer_data(self, data: bytes) -> None:
        """Bytes from upstream."""
        relay = self._relay
        try:
            if relay is None:
                if self._passed_at_once(data):
                    return
                relay = self._expect()
            if not relay.started:
                self.first_byte_at = self.shared.now()
                if self._paused or self.charged or self.buffer is not None:
                    self._first_byte()
                else:
                    self.side.deadline = self._whole_due
            out = relay.feed(data)
            if out:
                self.bytes_out += len(out)
                self.side.write(out)
            if relay.end is not None:
                self._answer_ended(relay)
            elif relay.tunnels:
                self.pass_down()
            else:
                self._pass_chunks(relay)
        except Exception as error:  # noqa: BLE001  logged there, and nothing may be left unanswered
            self._failed(error)

    def _pass_chunks(self, relay: Relay) -> None:
        """Whole chunks need none of this: they go past us, if they may."""
        chunks, up = relay.whole_chunks(), self._up
        if up is not None:
            self.bytes_out += up.pass_no_more()
            if chunks is not None:
                up.pass_on(chunks, self.side.write)

    def answer_lost(self, error: Exception | None) -> None:
        """The upstream's connection has ended before its answer had."""
        up, self._up = self._up, None
        relay = self._relay
        assert up is not None  # a taker only while a request is on the connection
        self.bytes_out += up.pass_no_more()
        try:
            if relay is None or not relay.started:
                self._relay = None
                if self._reach is None:
                    self._reach = Reach(self, None if self._plan is None else self._plan.route)
                self._reach.lost(up)
                return
            out = relay.eof()
            if out:
                self.bytes_out += len(out)
                self.side.write(out)
            self._answer_ended(relay)
        except Exception as failure:  # noqa: BLE001  as above
            self._failed(failure)

    def _first_byte(self) -> None:
        due = self._whole_due
        if self._paused:
            due = min(due, self.first_byte_at + self.shared.limits.stall_timeout)
        self.side.deadline = due
        held = self.charged or self.buffer is not None
        if held and (self._plan is None or self._plan.others is None):
            # No retry from here on: the body has done its work, and a stream may last for minutes.
            self._release_body()

    def _answer_ended(self, relay: Relay) -> None:
        up, self._up = self._up, None
        if up is not None:
            self.bytes_out += up.pass_no_more()
            if relay.reusable and self.lease is not None and up.transport.get_write_buffer_size() == 0:
                if self._paused:
                    up.transport.resume_reading()
                up.last_head = relay.head
                self.shared.pool.give(up, self.shared.now())
            else:
                up.drop()
        if relay.status:
            self.status = relay.status
        end, refusal = relay.end, relay.refusal
        if end is _COMPLETE:
            self._end(_SERVED, keep=not relay.close)
            return
        assert refusal is not None  # set with every other end
        if end in (End.REFUSED, End.YIELDED):
            self.give_lease(Outcome.UPSTREAM_FAILED if end is End.REFUSED else Outcome.SERVED)
            self.refuse(refusal)
            return
        if end is End.CUT:
            self.side.cut(reset=relay.framing == b"close")
        # An engine's own error, said as an event, is no failure of the instance.
        answered = end is End.SAID and relay.head is not None and relay.head.status != 200
        outcome = Outcome.SERVED if answered else Outcome.UPSTREAM_FAILED
        self._end(outcome, keep=end is End.SAID and not relay.close, code=refusal.code)

    # -- ends --------------------------------------------------------------------------------------

    def refuse(self, refusal: Refusal, *, close: bool = False) -> None:
        """Answer *refusal*, as an error event if a stream was begun already, and end.

        A virtual name's next model is asked instead, where there is one.
        """
        if self.over:
            return
        self._drop_upstream()
        others = None if close or self._plan is None else self._plan.others
        planned = None if others is None else others.after(refusal)
        if planned is not None:
            # Nothing was answered yet; whoever has refused has come to its end: there is no task to cancel.
            self.give_lease(Outcome.ABANDONED)
            self._uncharge_model()
            self._relay = self._reach = None
            self.note_retry()
            self._set_out(planned, self.shared.now())
            return
        head = self.head
        close = close or head.close or self.side.closing
        if self._beats is not None and self._beats.committed:
            out = self._beats.end(refusal)
        else:
            self.status = refusal.status
            bodyless = head.method == b"HEAD"
            out = refusal_answer(refusal, head.face, own=self.own, close=close, bodyless=bodyless)
        self.bytes_out += len(out)
        self.side.write(out)
        self.shared.counters.refused_total += refusal.status >= 300
        self._end(None, keep=not close, code=refusal.code)

    def client_gone(self) -> None:
        """Nobody reads any more: stop the engine's work, or read it to its end where it cannot be stopped."""
        if self.over:
            return
        self.shared.counters.client_gone_total += 1
        up, lease, relay, planned = self._up, self.lease, self._relay, self._plan
        drains = planned is not None and not planned.route.wire.abort_on_disconnect
        if drains and not self.tunnelled and up is not None and lease is not None:
            relay = relay or self._expect()
            self.bytes_out += up.pass_no_more()
            self._up = self.lease = None
            Drain(self.shared, up, lease, relay)
        self._drop_upstream()
        self.status = self.status or (0 if relay is None else relay.status) or _CLIENT_CLOSED
        self._end(Outcome.CLIENT_GONE, keep=None)

    def stop(self, refusal: Refusal) -> None:
        """End now, because the daemon does: with *refusal* where anything can be said, else with a hard
        close."""
        if self.over:
            return
        relay = self._relay
        if relay is None or not relay.committed:
            self.give_lease(Outcome.ABANDONED)
            self.refuse(refusal, close=True)
            return
        out = relay.fail(refusal)
        if relay.end is End.CUT:
            self.side.cut(reset=relay.framing == b"close")
        else:
            self.side.write(out)
        self._drop_upstream()
        self.status = self.status or relay.status
        self._end(Outcome.ABANDONED, keep=False, code=refusal.code)

    def expired(self, now: float) -> None:
        """A deadline has passed: a client that reads nothing, the engine's first byte, or a beat that is
        due."""
        planned, sent = self._plan, self._up is not None
        if now >= self._whole_due:
            self.stop(refused.answer_timeout(self.shared.limits.answer_timeout))
        elif self._paused:
            self.side.cut()
        elif self.tunnelled:
            self.stop(refused.tunnel_idle(self.shared.limits.tunnel_idle))
        elif sent and now >= self._first_byte_due and planned is not None:
            self._drop_upstream()
            self.give_lease(Outcome.ABANDONED)
            seconds = self._first_byte_due - self.leased_at
            self.refuse(refused.first_byte_timeout(planned.route.model, seconds))
        elif not sent and now >= self._patience_due and planned is not None:
            route, ups = planned.route, self.shared.upstreams
            self.refuse(refused.still_loading(route.model, ups.waiting_note(route), ups.ready_in(route)))
        elif self._beats is not None and planned is not None:
            self._beat(self._beats, planned)

    def _failed(self, error: Exception) -> None:
        """Our own fault: say so if nothing was sent yet, close hard otherwise."""
        log.error("exchange_failed", request=self.request_id, path=self.head.path, exc_info=error)
        relay = self._relay
        self._drop_upstream()
        self.give_lease(Outcome.ABANDONED)
        if self.over or (relay is not None and relay.committed):
            self.side.cut(reset=relay is not None and relay.framing == b"close")
            self._end(Outcome.ABANDONED, keep=False, code="internal_error")
        else:
            self.refuse(refused.internal(), close=True)

    # -- keeping a client alive --------------------------------------------------------------------

    def expect_beats(self) -> None:
        """The request waits: a client gets signs of life, or is told to come again before it tires."""
        planned, shared, head = self._plan, self.shared, self.head
        if planned is None or head.endpoint is None or planned.tunnel:
            return
        if self._beats is None:
            close = head.close or self.side.closing
            self._beats = beats_for(
                planned, head.endpoint, head.face, shared.limits, minor=head.minor, own=self.own, close=close
            )
            if self._beats is None and not planned.streams:
                self._patience_due = self.received + (
                    said_by(head.headers) or shared.limits.patience or NEVER
                )
        self.side.deadline = self._patience_due if self._beats is None else self._next_beat()

    def _next_beat(self) -> float:
        shared = self.shared
        due = shared.now() + shared.limits.comment_every
        return min(due, self._first_byte_due) if self._relay is not None else due

    def _beat(self, beats: Beats, planned: Plan) -> None:
        """Say that we are still here."""
        if self._relay is None:
            note = self.shared.upstreams.waiting_note(planned.route)
        else:
            note = f"{planned.route.model} is ready, waiting for its first token"
        out = beats.beat(note)
        self.status = 200
        self.bytes_out += len(out)
        self.side.deadline = self._next_beat()
        self.side.write(out)

    # -- flow --------------------------------------------------------------------------------------

    def pause(self) -> None:
        """The client reads too slowly: read no more from the engine."""
        self._paused = True
        if self._up is not None:
            self._up.transport.pause_reading()
        self.side.deadline = min(self._whole_due, self.shared.now() + self.shared.limits.stall_timeout)

    def resume(self) -> None:
        """The client reads again."""
        self._paused = False
        waits = self._beats is not None and (self._relay is None or not self._relay.started)
        self.side.deadline = self._next_beat() if waits else self._whole_due
        if self._up is not None:
            self._up.transport.resume_reading()

    # -- parts of an end ---------------------------------------------------------------------------

    def give_lease(self, outcome: Outcome) -> None:
        """Release the lease, if there is one."""
        lease, self.lease = self.lease, None
        if lease is not None:
            if outcome is Outcome.UPSTREAM_FAILED:
                self.shared.counters.upstream_failed_total += 1
            lease.release(outcome)

    def note_retry(self) -> None:
        """The request is sent a second time."""
        self.retried = True
        self.shared.counters.retried_total += 1

    def _end(self, outcome: Outcome | None, *, keep: bool | None, code: str = "") -> None:
        """The one place where an exchange ends: everything held is given back, once.

        *outcome* None: refused; *keep* None: the client is gone.
        """
        if self.over:
            return
        self.over = True
        shared = self.shared
        lease, self.lease = self.lease, None
        if lease is not None:
            if outcome is Outcome.UPSTREAM_FAILED:
                shared.counters.upstream_failed_total += 1
            lease.release(outcome or Outcome.ABANDONED)
        if self.holder is not None:
            self.holder.leave()
        if self._reach is not None:
            self._reach.cancel()
        if self.charged or self.buffer is not None:
            self._release_body()
        now = shared.now()
        shared.exchange_ended()
        shared.recorder(record_of(self, self._relay, self._plan, outcome=outcome, code=code, now=now))
        if keep is not None:
            self.side.answered(keep=keep, now=now)

    def _drop_upstream(self) -> None:
        up, self._up = self._up, None
        if up is not None:
            self.bytes_out += up.pass_no_more()
            up.drop()
