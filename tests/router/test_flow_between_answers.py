"""Back-pressure at the seam between two answers, on transports that obey the test."""

from __future__ import annotations

import asyncio
from typing import Any

from registry.engine import Wire
from router.connection import FrontConnection
from router.ports import FrontLimits, Outcome, Recorder, RequestRecord, Route
from router.shared import FrontPorts, Shared
from router.upstream import UpstreamConnection
from router.wheel import Wheel
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.wire import CHAT, FakeControl, FakeDirectory, FakeUpstreams, refusals

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class FakeTransport(asyncio.Transport):
    """Takes everything; says when it is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.protocol: FrontConnection | None = None
        self.full_at: int | None = None
        """Tell the protocol to pause once this much was written."""

    def write(self, data: Any) -> None:
        self.written += data
        if self.full_at is not None and len(self.written) >= self.full_at and self.protocol is not None:
            self.full_at = None
            self.protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self.written += b"<abort>"


def never_spawn(work: Any, *, name: str) -> asyncio.Task[Any]:
    raise AssertionError(f"a warm request made the task {name}")


def some_ports(recorder: Recorder = lambda record: None) -> FrontPorts:
    directory = FakeDirectory({"m": Route("m", object(), Wire("m"))})
    engine = ScriptedUpstream.__new__(ScriptedUpstream)
    engine.port = 1
    return FrontPorts(
        directory=directory, upstreams=FakeUpstreams(engine), refusals=refusals, recorder=recorder,
        control=FakeControl(), spawn=never_spawn, now=lambda: 0.0, request_ids=lambda: "r",
    )  # fmt: skip


def a_shared(recorder: Recorder = lambda record: None) -> Shared:
    return Shared(some_ports(recorder), FrontLimits(), Wheel(lambda: 0.0, None))


def a_client(shared: Shared) -> tuple[FrontConnection, FakeTransport]:
    client, transport = FrontConnection(shared, set()), FakeTransport()
    transport.protocol = client
    client.connection_made(transport)
    return client, transport


def an_engine(shared: Shared) -> tuple[UpstreamConnection, FakeTransport]:
    up, transport = UpstreamConnection(("127.0.0.1", 1, 1)), FakeTransport()
    up.connection_made(transport)
    shared.pool.give(up, 0.0)
    return up, transport


def send(client: FrontConnection, body: bytes) -> None:
    raw = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    client.data_received(raw)


def test_a_connection_paused_by_the_last_bytes_is_given_back_reading() -> None:
    shared = a_shared()
    client, client_transport = a_client(shared)
    up, up_transport = an_engine(shared)
    for _ in range(2):  # the second answer is like one before it, and takes the short way
        send(client, CHAT)
        assert up_transport.written.endswith(CHAT)
        client_transport.full_at = 1
        up.data_received(ANSWER + b"body")
        assert client_transport.written.endswith(b"body")
        assert up_transport.reading
        assert shared.pool.idle == 1
        assert up.taker is None
        client.resume_writing()


def test_an_answer_that_passes_at_once_is_what_a_relay_makes_of_it() -> None:
    records: list[RequestRecord] = []
    shared = a_shared(records.append)
    client, client_transport = a_client(shared)
    up, _ = an_engine(shared)
    body = b'{"usage":{"prompt_tokens":7,"completion_tokens":3}}'
    answer = b"HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    answers = []
    for pieces in ([answer], [answer], [answer[:20], answer[20:]], [answer[:-5], answer[-5:]]):
        client_transport.written = b""
        send(client, CHAT)
        for piece in pieces:
            up.data_received(piece)
        answers.append(client_transport.written)
    assert answers[0].endswith(b"\r\n\r\n" + body)
    assert answers == answers[:1] * 4
    assert records == records[:1] * 4
    assert (records[0].prompt_tokens, records[0].completion_tokens) == (7, 3)
    assert (records[0].outcome, records[0].status, records[0].bytes_out) == ("served", 200, len(answers[0]))
    assert shared.counters.in_flight == 0


def test_an_answer_longer_than_its_length_costs_the_engine_its_connection() -> None:
    shared = a_shared()
    client, client_transport = a_client(shared)
    up, up_transport = an_engine(shared)
    for more in (b"", b"more"):
        send(client, CHAT)
        up.data_received(ANSWER + b"body" + more)
        assert client_transport.written.endswith(b"\r\n\r\nbody")
    assert up.lost
    assert up_transport.written.endswith(b"<abort>")


def test_a_recorder_that_raises_leaves_no_second_answer_and_no_lease() -> None:
    seen: list[RequestRecord] = []

    def broken(record: RequestRecord) -> None:
        seen.append(record)
        if len(seen) == 2:
            raise ValueError("it broke")

    shared = a_shared(broken)
    leases = shared.upstreams
    assert isinstance(leases, FakeUpstreams)
    client, client_transport = a_client(shared)
    up, _ = an_engine(shared)
    for _ in range(2):
        send(client, CHAT)
        up.data_received(ANSWER + b"body")
    assert client_transport.written.count(b"HTTP/1.1") == 2
    assert client_transport.written.endswith(b"body<abort>")
    assert [lease.ended for lease in leases.leases] == [[Outcome.SERVED]] * 2


def test_the_next_answer_to_a_full_client_is_not_read_until_it_is_empty() -> None:
    shared = a_shared()
    client, client_transport = a_client(shared)
    up, up_transport = an_engine(shared)
    send(client, CHAT)
    client_transport.full_at = 1
    up.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody")
    send(client, CHAT)
    assert up.taker is not None
    assert not up_transport.reading
    client.resume_writing()
    assert up_transport.reading


def test_a_warm_request_is_written_before_its_reading_returns() -> None:
    shared = a_shared()
    client, client_transport = a_client(shared)
    up, up_transport = an_engine(shared)
    for n in range(3):
        send(client, b'{"model":"m","n":%d}' % n)
        assert up_transport.written.endswith(b'"n":%d}' % n)
        up.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % n)
        assert client_transport.written.endswith(b"\r\n\r\n%d" % n)
    leases = shared.upstreams
    assert isinstance(leases, FakeUpstreams)
    assert [lease.ended for lease in leases.leases] == [[Outcome.SERVED]] * 3


def test_chunks_that_go_past_the_exchange_are_counted_and_the_end_is_seen() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    events = [b'data: {"n":%d}\n\n' % n for n in range(40)]
    events += [b'data: {"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n', b"data: [DONE]\n\n"]
    framed = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    last = b"0\r\n\r\n"
    ways = {
        "an event a read": [head, *framed, last],
        "the end with the last": [head, *framed[:-1], framed[-1] + last],
        "two at once": [head, *map(bytes.__add__, framed[::2], framed[1::2]), last],
        "torn": [head, *(framed[:20]), framed[20][:5], framed[20][5:], *framed[21:], last],
        "all at once": [head + b"".join(framed) + last],
    }
    seen: dict[str, list[Any]] = {}
    for way, reads in ways.items():
        records: list[RequestRecord] = []
        shared = a_shared(records.append)
        client, client_transport = a_client(shared)
        up, _ = an_engine(shared)
        send(client, CHAT)
        for read in reads:
            up.data_received(read)
        (record,) = records
        assert shared.pool.idle == 1, way
        assert record.bytes_out == len(client_transport.written), way
        seen[way] = [client_transport.written, record.outcome, record.prompt_tokens, record.completion_tokens]
    assert seen["all at once"][0].endswith(b"".join(framed) + last)
    assert list(seen.values()) == [[seen["torn"][0], "served", 7, 3]] * len(ways)


def test_a_stream_that_is_cut_after_whole_chunks_says_so_and_one_that_its_client_leaves_ends() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    event = b"data: 1\n\n"
    framed = b"%x\r\n%b\r\n" % (len(event), event)
    for leaves in (False, True):
        records: list[RequestRecord] = []
        shared = a_shared(records.append)
        client, client_transport = a_client(shared)
        up, up_transport = an_engine(shared)
        send(client, CHAT)
        for read in (head, *[framed] * 20):
            up.data_received(read)
        if leaves:
            client.connection_lost(None)
            assert up_transport.written.endswith(b"<abort>")
            assert records[0].outcome == "client_gone"
        else:
            up.connection_lost(None)
            assert b'"error"' in client_transport.written
            assert records[0].outcome == "upstream_failed"
        assert records[0].bytes_out == len(client_transport.written)
