"""One request's way: from its whole body to its last byte, on every path exactly one end.

    begin ── route ── lease_now ── pooled connection ── send ── answer_data … ── end
       │                  └───────────────┴── Reach (a task: lease, connect, retry) ──► send
       └── control app ───────────────────────┘

A warm request stays in `def`s from its last byte to the write to the engine: no task, no await, no timer.
"""

from __future__ import annotations

import structlog

from registry.capability import ENDPOINTS
from registry.capability import Protocol as ApiProtocol
from router import refused
from router.answers import refusal_answer
from router.client_side import ClientSide
from router.drain import Drain
from router.heads import RequestHead, control_head, engine_head, special_objection
from router.openai import FACES
from router.plan import Plan, plan
from router.ports import Holder, Lease, Outcome, Refusal, RequestRecord
from router.reach import Reach
from router.relay import End, Relay
from router.request import Bytes
from router.shared import Shared
from router.upstream import UpstreamConnection
from router.waiting import Beats
from router.wheel import NEVER

log = structlog.get_logger("modelyard.front")

_JOINED = 65536
"""A body up to this size goes out in one piece with its head."""
_CLIENT_CLOSED = 499
"""What the log shows for a client that left before there was a status."""
_OPENAI_FACE = FACES[ApiProtocol.OPENAI]


class Exchange:
    """A request and its answer. Once `over`, nothing of it is held anywhere."""

    __slots__ = (
        "_beats", "_charged_model", "_control_body", "_first_byte_at", "_first_byte_due", "_leased_at",
        "_paused", "_plan", "_reach", "_received", "_relay", "_retried", "_started", "_status", "_up",
        "buffer", "bytes_in", "bytes_out", "charged", "endpoint", "face", "head", "holder", "lease", "over",
        "request_id", "shared", "side",
    )  # fmt: skip

    def __init__(self, shared: Shared, side: ClientSide, head: RequestHead) -> None:
        self.shared = shared
        self.side = side
        self.head = head
        endpoint = self.endpoint = ENDPOINTS.get(head.path) if head.method == b"POST" else None
        """None: the control app's."""
        self.face = _OPENAI_FACE if endpoint is None else FACES[endpoint.protocol]
        self.request_id = head.request_id() or shared.request_id()
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
        self._control_body: Bytes = b""
        self._relay: Relay | None = None
        self._reach: Reach | None = None
        self._up: UpstreamConnection | None = None
        self._beats: Beats | None = None
        """Signs of life for a streaming client that waits."""
        self._paused = self._retried = False
        self._status = 0
        self._started = self._received = shared.now()
        self._leased_at = self._first_byte_due = self._first_byte_at = 0.0
        counters = shared.counters
        counters.in_flight += 1
        counters.requests_total += 1

    def __repr__(self) -> str:
        return f"<Exchange {self.request_id} {self.head.path} over={self.over} lease={self.lease!r}>"

    # -- in ----------------------------------------------------------------------------------------

    def objection(self) -> Refusal | None:
        """Why the request is refused on its head alone, before a byte of its body is read."""
        head = self.head
        authorizer = self.shared.authorizer
        if authorizer is not None:
            verdict = authorizer(head.headers, head.path)
            if isinstance(verdict, Refusal):
                return verdict
            self.holder = verdict
        return special_objection(head, for_engine=self.endpoint is not None) if head.special else None

    def begin(self, body: Bytes) -> None:
        """The body is complete: find out where it goes, and send it."""
        shared = self.shared
        self._received = shared.now()
        self.bytes_in = len(body)
        self.side.deadline = NEVER
        endpoint = self.endpoint
        if endpoint is None:
            self._control_body = body
            self._reach = Reach(self, None)
            self._reach.begin()
            return
        try:
            planned = self._plan = plan(body, self.head, endpoint, shared.directory, holder=self.holder)
        except refused.RefusedError as error:
            self.refuse(error.refusal)
        except Exception as error:  # noqa: BLE001  Refusals is total, and nothing may be left unanswered
            self.refuse(shared.refusals(error))
        else:
            self._set_out(planned)

    def _set_out(self, planned: Plan) -> None:
        """Send the request at once, if there is a lease and a connection; else find them."""
        shared, up = self.shared, None
        try:
            lease = self.lease = shared.upstreams.lease_now(planned.route)
        except Exception as error:  # noqa: BLE001  Refusals is total, and nothing may be left unanswered
            self.refuse(shared.refusals(error))
            return
        if lease is not None:
            self._leased_at = shared.now()
            up = shared.pool.take(lease)
        if up is not None:
            self.send(up)
        elif lease is not None or self._charge(planned):
            reach = self._reach = Reach(self, planned.route)
            if lease is None:
                reach.begin_waiting()
            reach.begin()

    def _charge(self, planned: Plan) -> bool:
        """Count the body of a request that will wait; False if it has been refused for want of room."""
        budget, model = self.shared.budget, planned.route.model
        size = sum(len(piece) for piece in planned.pieces)
        if not self.charged:
            if not budget.take(size):
                self.refuse(refused.buffer_full(None))
                return False
            self.charged = size
        if not budget.take_model(model, size):
            self.refuse(refused.buffer_full(model))
            return False
        self._charged_model = size
        return True

    # -- sending -----------------------------------------------------------------------------------

    def leased(self, lease: Lease) -> None:
        """`Reach` has got a lease."""
        self.lease = lease
        self._leased_at = self.shared.now()
        self.side.deadline = NEVER

    def send(self, up: UpstreamConnection) -> None:
        """Write the whole request to *up*; from here on callbacks drive the exchange."""
        head, planned, lease, side = self.head, self._plan, self.lease, self.side
        self._up = up
        up.taker = self
        request_id, shared = self.request_id.encode(), self.shared
        if planned is None or lease is None:
            pieces = [self._control_body]
            size = len(pieces[0])
            relay = Relay(
                shared.control_heads, model="control", face=None, minor=head.minor, request_id=request_id
            )
            relay.bodyless = head.method == b"HEAD"
            first = control_head(head, length=size, request_id=request_id)
            side.deadline = NEVER  # the control app has deadlines of its own
        else:
            pieces, route = planned.pieces, planned.route
            size = len(pieces[0]) if len(pieces) == 1 else sum(len(piece) for piece in pieces)
            heads, model, face = shared.engine_heads, route.model, self.face
            relay = Relay(heads, model=model, face=face, minor=head.minor, request_id=request_id)
            relay.expects_done = route.wire.sends_done
            if planned.others is not None:
                relay.yields = planned.others.statuses()
            relay.echo = planned.echo()
            address = f"{lease.host}:{lease.port}".encode()
            path, key = planned.path, lease.key
            first = engine_head(head, path, address, key=key, length=size, request_id=request_id)
            due = self._leased_at + shared.limits.first_byte_timeout
            side.deadline = self._first_byte_due = due
            if self._beats is not None and self._beats.committed:
                relay.promise_events()
                side.deadline = min(due, shared.now() + shared.limits.comment_every)
        relay.close = head.close or side.closing
        self._relay = relay
        write = up.transport.write
        if size <= _JOINED:
            write(b"".join((first, *pieces)))
        else:
            write(first)
            for piece in pieces:
                write(piece)
        if self._paused:
            up.transport.pause_reading()

    # -- the answer --------------------------------------------------------------------------------

    def answer_data(self, data: bytes) -> None:
        """Bytes from upstream."""
        relay = self._relay
        assert relay is not None  # a taker only while a request is on the connection
        try:
            if not relay.started:
                self._first_byte()
            out = relay.feed(data)
            if out:
                self.bytes_out += len(out)
                self.side.write(out)
            if relay.end is not None:
                self._answer_ended(relay)
        except Exception as error:
            log.exception("exchange_failed", request=self.request_id, path=self.head.path, error=repr(error))
            self._failed()

    def answer_lost(self, error: Exception | None) -> None:
        """The upstream's connection has ended before its answer had."""
        up, self._up = self._up, None
        relay = self._relay
        assert relay is not None  # a taker only while a request is on the connection
        assert up is not None
        try:
            if not relay.started:
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
        except Exception as failure:
            log.exception(
                "exchange_failed", request=self.request_id, path=self.head.path, error=repr(failure)
            )
            self._failed()

    def _first_byte(self) -> None:
        now = self._first_byte_at = self.shared.now()
        self.side.deadline = now + self.shared.limits.stall_timeout if self._paused else NEVER
        held = self.charged or self.buffer is not None
        if held and (self._plan is None or self._plan.others is None):
            # No retry from here on: the body has done its work, and a stream may last for minutes.
            self._release_body()

    def _answer_ended(self, relay: Relay) -> None:
        up, self._up = self._up, None
        if up is not None:
            if relay.reusable and self.lease is not None and up.transport.get_write_buffer_size() == 0:
                if self._paused:
                    up.transport.resume_reading()
                self.shared.pool.give(up)
            else:
                up.drop()
        if relay.status:
            self._status = relay.status
        end, refusal = relay.end, relay.refusal
        if end is End.COMPLETE:
            self._end(Outcome.SERVED, keep=not relay.close)
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
            self._plan = planned
            self.note_retry()
            self._set_out(planned)
            return
        head = self.head
        close = close or head.close or self.side.closing
        if self._beats is not None and self._beats.committed:
            out = self._beats.end(refusal)
        else:
            self._status = refusal.status
            bodyless = head.method == b"HEAD"
            request_id = self.request_id
            out = refusal_answer(refusal, self.face, request_id=request_id, close=close, bodyless=bodyless)
        self.bytes_out += len(out)
        self.side.write(out)
        self.shared.counters.refused_total += 1
        self._end(None, keep=not close, code=refusal.code)

    def client_gone(self) -> None:
        """Nobody reads any more: stop the engine's work, or read it to its end where it cannot be stopped."""
        if self.over:
            return
        self.shared.counters.client_gone_total += 1
        up, lease, relay, planned = self._up, self.lease, self._relay, self._plan
        drains = planned is not None and not planned.route.wire.abort_on_disconnect
        if drains and up is not None and lease is not None and relay is not None:
            self._up = self.lease = None
            Drain(self.shared, up, lease, relay)
        self._drop_upstream()
        self._status = self._status or (0 if relay is None else relay.status) or _CLIENT_CLOSED
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
        self._status = self._status or relay.status
        self._end(Outcome.ABANDONED, keep=False, code=refusal.code)

    def expired(self, now: float) -> None:
        """A deadline has passed: a client that reads nothing, the engine's first byte, or a beat that is
        due."""
        relay = self._relay
        if self._paused:
            self.side.cut()
        elif relay is not None and now >= self._first_byte_due:
            self._drop_upstream()
            self.give_lease(Outcome.ABANDONED)
            self.refuse(refused.first_byte_timeout(relay.model, self.shared.limits.first_byte_timeout))
        elif self._beats is not None and self._plan is not None:
            self._beat(self._beats, self._plan)

    def _failed(self) -> None:
        """Our own fault: say so if nothing was sent yet, close hard otherwise."""
        relay = self._relay
        self._drop_upstream()
        self.give_lease(Outcome.ABANDONED)
        if relay is not None and relay.committed:
            self.side.cut(reset=relay.framing == b"close")
            self._end(Outcome.ABANDONED, keep=False, code="internal_error")
        else:
            self.refuse(refused.internal(), close=True)

    # -- keeping a client alive --------------------------------------------------------------------

    def expect_beats(self) -> None:
        """The request waits: a streaming client gets a sign of life from the first pause on."""
        head, planned = self.head, self._plan
        streams = planned is not None and planned.streams and self.shared.limits.loading_comments
        if self._beats is None and streams:
            close = head.close or self.side.closing
            self._beats = Beats(self.face, minor=head.minor, request_id=self.request_id, close=close)
        self.side.deadline = NEVER if self._beats is None else self._next_beat()

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
        self._status = 200
        self.bytes_out += len(out)
        self.side.deadline = self._next_beat()
        self.side.write(out)

    # -- flow --------------------------------------------------------------------------------------

    def pause(self) -> None:
        """The client reads too slowly: read no more from the engine."""
        self._paused = True
        if self._up is not None:
            self._up.transport.pause_reading()
        self.side.deadline = self.shared.now() + self.shared.limits.stall_timeout

    def resume(self) -> None:
        """The client reads again."""
        self._paused = False
        waits = self._beats is not None and (self._relay is None or not self._relay.started)
        self.side.deadline = self._next_beat() if waits else NEVER
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
        self._retried = True
        self.shared.counters.retried_total += 1

    def _end(self, outcome: Outcome | None, *, keep: bool | None, code: str = "") -> None:
        """The one place where an exchange ends: everything held is given back, once.

        *outcome* None: refused; *keep* None: the client is gone.
        """
        if self.over:
            return
        self.over = True
        shared = self.shared
        self.give_lease(outcome or Outcome.ABANDONED)
        if self.holder is not None:
            self.holder.leave()
        if self._reach is not None:
            self._reach.cancel()
        if self.charged or self.buffer is not None:
            self._release_body()
        shared.exchange_ended()
        self._record(outcome, code)
        if keep is not None:
            self.side.answered(keep=keep)

    def _record(self, outcome: Outcome | None, code: str) -> None:
        shared, head, relay, planned = self.shared, self.head, self._relay, self._plan
        word = "refused" if outcome is None else outcome.value
        if self.endpoint is None and outcome is Outcome.SERVED:
            word = "control"
        record = RequestRecord(
            self.request_id, head.method.decode(), head.path, self.side.client,
            "" if planned is None else planned.route.model, self._status, word, code, bytes_in=self.bytes_in,
            bytes_out=self.bytes_out, total=shared.now() - self._started, retried=self._retried,
            key="" if self.holder is None else self.holder.key,
        )  # fmt: skip
        if self._leased_at:
            record.waited = self._leased_at - self._received
        if relay is not None and relay.started:
            record.first_byte = self._first_byte_at - self._received
            record.streamed = relay.events
            if planned is not None:
                record.prompt_tokens, record.completion_tokens = relay.usage()
        shared.recorder(record)

    def _drop_upstream(self) -> None:
        up, self._up = self._up, None
        if up is not None:
            up.drop()

    def _uncharge_model(self) -> None:
        if self._charged_model and self._plan is not None:
            self.shared.budget.give_model(self._plan.route.model, self._charged_model)
            self._charged_model = 0

    def _release_body(self) -> None:
        """Give the body's budget and buffer back; a buffer still being written is left to the collector."""
        shared, up = self.shared, self._up
        if self._plan is not None:
            self._plan.pieces = []
        self._control_body = b""
        if self.charged:
            shared.budget.give(self.charged)
            self.charged = 0
        self._uncharge_model()
        buffer, self.buffer = self.buffer, None
        if buffer is not None and up is not None and up.transport.get_write_buffer_size() == 0:
            shared.buffers.give(buffer)
