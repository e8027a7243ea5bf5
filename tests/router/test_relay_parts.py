"""Chunk scanner, model echo, tail, wheel, budget and buffers: pure parts of the relay."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.capability import Protocol as ApiProtocol
from router.answer_head import parse_engine_head
from router.chunks import SIZE_LINES, ChunkScanner, FramingError, chunk
from router.echo import ModelEcho
from router.ending import End
from router.head_cache import HeadCache, again
from router.heads import RequestHead, parse_request_head
from router.limits import BodyBudget, BufferStore
from router.openai import FACES
from router.refused import RefusedError
from router.relay import Relay
from router.tail import Tail
from router.wheel import NEVER, Wheel

HEADS_SEEN = HeadCache(parse_engine_head)


def take(cache: HeadCache[Any], data: bytes) -> tuple[Any, int | None]:
    """The head that is all of *data*."""
    found: tuple[Any, int | None] = cache.take(data, len(data))
    return found


QUICK = settings(max_examples=50, deadline=None)
CUTS = st.lists(st.integers(0, 400), max_size=12)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """*data* cut at the given offsets."""
    marks = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[a:b] for a, b in itertools.pairwise(marks)]


@QUICK
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), CUTS, st.binary(max_size=5))
def test_any_split_of_a_chunked_body_gives_the_same(
    pieces: list[bytes], cuts: list[int], after: bytes
) -> None:
    framed = b"".join(chunk(piece) for piece in pieces)
    whole = framed + b"0\r\nx-trailer: 1\r\n\r\n" + after
    scanner, payload, passed = ChunkScanner(), list[bytes](), b""
    for part in split(whole, cuts):
        if scanner.ended:
            scanner.rest += part
            continue
        passed += scanner.feed(part, payload)
        if scanner.between_chunks:
            # Whatever has been passed on can be ended here.
            assert passed == b"" or passed.endswith(b"\r\n")
    assert scanner.ended
    assert (b"".join(payload), passed, scanner.rest) == (b"".join(pieces), framed, after)


def test_a_listed_size_line_is_that_of_a_whole_chunk_and_of_nothing_else() -> None:
    for whole, line in enumerate(SIZE_LINES):
        data = line + bytes(max(0, whole - len(line) - 2)) + b"\r\n"
        if len(data) != whole:
            assert len(line) > whole  # no chunk is that long, and nothing of that length begins like this
            assert whole < 6 or whole in (21, 262)
            continue
        scanner, payload = ChunkScanner(), list[bytes]()
        assert scanner.feed(data, payload) == data
        assert scanner.fresh
        assert payload == [data[len(line) : -2]]


@QUICK
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6), CUTS, CUTS)
def test_the_tail_is_the_same_however_chunks_are_split(
    pieces: list[bytes], cuts: list[int], others: list[int]
) -> None:
    end = b"data: [DONE]\n\n"
    framed = b"".join(chunk(piece) for piece in (*pieces, end)) + b"0\r\n\r\n"
    tails = []
    for where in (cuts, others, list(itertools.accumulate(len(chunk(piece)) for piece in pieces))):
        relay = Relay(HEADS_SEEN, model="m", face=FACES[ApiProtocol.OPENAI], minor=1, own=b"x-request-id: r")
        relay.as_it_is = True
        out = relay.feed(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        passed = b"".join(relay.feed(part) for part in split(framed, where))
        assert out.endswith(b"\r\n\r\n")
        assert (passed, relay.end) == (framed, End.COMPLETE)
        tails.append(relay._tail._all())
    assert tails == [b"".join((*pieces, end))] * 3


@pytest.mark.parametrize(
    "raw",
    [
        b"x\r\n", b"-1\r\n", b"+1\r\na\r\n", b" 1\r\na\r\n", b"0x1\r\na\r\n", b"1_0\r\n", b"\r\n", b"\n",
        b"1\na\r\n", b"1 \r\na\r\n", b"1\r\nab\r\n", b"1\r\na\n", b"1\r\na\rx", b"ffffffffffffffff\r\n",
        b"1;" + b"a" * 2000, b"0\r\n" + b"a: b\r\n" * 3000,
        b"0\r\n" + b"a: b\r\n" * 3000 + b"\r\n", b"1;a\rb\r\n",
    ],
)  # fmt: skip
@QUICK
@given(cuts=CUTS)
def test_what_is_no_chunk_is_an_error_in_any_split(raw: bytes, cuts: list[int]) -> None:
    def feed_all() -> None:
        scanner = ChunkScanner()
        for part in split(raw, cuts):
            scanner.feed(part, [])

    with pytest.raises(FramingError):
        feed_all()


def test_a_whole_chunk_passes_without_a_copy() -> None:
    data = chunk(b"data: x\n\n")
    assert ChunkScanner().feed(data, []) is data


EVENTS = st.lists(
    st.fixed_dictionaries(
        {"model": st.sampled_from(["served", "other", 'ser"ved']), "t": st.text(max_size=5)}
    ),
    max_size=4,
)


@QUICK
@given(EVENTS, CUTS, st.sampled_from([(",", ":"), (", ", ": ")]), st.sampled_from(["\n\n", "\r\n\r\n"]))
def test_the_echo_is_the_same_for_any_split(
    events: list[dict[str, str]], cuts: list[int], separators: tuple[str, str], boundary: str
) -> None:
    raw = "".join(f"data: {json.dumps(e, separators=separators)}{boundary}" for e in events).encode()
    echo = ModelEcho("served", "asked/é")
    got = b"".join(echo.feed(part) for part in split(raw, cuts)) + echo.flush()
    seen = [json.loads(line[6:]) for line in got.decode().splitlines() if line]
    assert seen == [{**e, "model": "asked/é" if e["model"] == "served" else e["model"]} for e in events]


def test_the_echo_replaces_only_the_first_name_of_an_event() -> None:
    echo = ModelEcho("s", "a")
    raw = b'data: {"model":"s","documents":[{"model":"s"}]}\n\ndata: {"model":"s"}\n\n'
    assert echo.feed(raw) + echo.flush() == (
        b'data: {"model":"a","documents":[{"model":"s"}]}\n\ndata: {"model":"a"}\n\n'
    )


def test_the_echo_holds_back_only_what_may_be_a_name() -> None:
    echo = ModelEcho("served", "a")
    assert echo.feed(b'data: {"id":"x","mod') == b'data: {"id":"x",'
    assert echo.feed(b'ify":1') == b'"modify":1'


def test_usage_is_read_from_the_end_whatever_came_before() -> None:
    tail = Tail()
    for _ in range(5000):
        tail.note(b'data: {"choices":[{"delta":{"content":"\\"usage\\": {\\"prompt_tokens\\": 1}"}}]}\n\n')
    tail.note(b'data: {"usage":{"prompt_tokens":7,"completion_tokens":9,"x":{"y":1}}}\n\ndata: [DONE]\n\n')
    assert tail.usage(events=True) == (7, 9)
    assert len(tail._all()) < 20_000
    tail = Tail()
    tail.note(b'{"usage": {"input_tokens": 3, "output_tokens": 4}}')
    assert tail.usage(events=True) == (3, 4)
    assert Tail().usage(events=False) == (0, 0)


def test_the_last_of_several_usages_counts_however_far_from_the_end() -> None:
    tail = Tail()
    for tokens in (1, 2):
        tail.note(b'data: {"usage":{"prompt_tokens":%d,"completion_tokens":5}}\n\n' % tokens)
    tail.note(b'data: {"choices":["' + b"x" * 1000 + b'"]}\n\ndata: [DONE]\n\n')
    assert tail.usage(events=True) == (2, 5)


def test_the_head_cache_tells_each_request_its_own_length_and_stays_small() -> None:
    parsed = []

    def parse(data: bytes) -> RequestHead:
        parsed.append(data)
        return parse_request_head(data, max_fields=100)

    cache = HeadCache(parse)
    for length in (b"5", b"77", b"900"):
        head, declared = take(cache, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n\r\n" % length)
        assert declared == int(length)
        assert head.path == "/"
    assert len(parsed) == 1
    for i in range(1000):
        take(cache, b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i)
        take(cache, b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: %d\r\n\r\n" % i)
    assert len(cache) <= 256
    take(cache, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 5000 + b"\r\n\r\n")
    assert all(len(key) <= 4096 for key in cache._known)


def test_a_peer_that_says_the_same_again_is_known_by_it() -> None:
    cache = HeadCache(lambda data: parse_request_head(data, max_fields=100))
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\nX: y\r\n\r\n"
    head, _ = take(cache, raw % b"5")
    for length in (b"5", b"0", b"007", b"1" * 15):
        assert again(head, raw % length + b"body") == (len(raw % length), int(length))
    for length in (b"", b"+5", b"5 ", b"0x5", b"-1", b"1" * 16, b"5, 5", b"5\n"):
        assert again(head, raw % length + b"body") is None
    for other in (raw % b"5", b""):
        assert again(head, other[:-1]) is None  # not whole
    assert again(head, (raw % b"5").replace(b"X: y", b"X: z")) is None
    assert again(head, (raw % b"5").replace(b"Host: a", b"Host: b")) is None
    bare, _ = take(cache, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert again(bare, b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET") == (27, None)
    assert again(bare, b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n") is None


@pytest.mark.parametrize("value", [b"", b"+5", b"5 5", b"5,5", b"0x5", b"1" * 16])
def test_the_head_cache_never_believes_an_odd_length(value: bytes) -> None:
    cache = HeadCache(lambda data: parse_request_head(data, max_fields=100))
    good = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
    take(cache, good)
    with pytest.raises(RefusedError):
        take(cache, good.replace(b": 5", b": " + value))
    with pytest.raises(RefusedError):
        take(cache, good.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"))


@pytest.mark.parametrize(
    ("protocol", "end", "complete"),
    [
        (ApiProtocol.OPENAI, b"data: [DONE]\n\n", True),
        (ApiProtocol.OPENAI, b"data:[DONE]\r\n\r\n", True),
        (ApiProtocol.OPENAI, b'data: {"content":"[DONE]"}\n\n', False),
        (ApiProtocol.OPENAI, b"", False),
        (ApiProtocol.ANTHROPIC, b'event: message_stop\ndata: {"type":"message_stop"}\n\n', True),
        (ApiProtocol.ANTHROPIC, b"event: ping\n\n", False),
        (ApiProtocol.RESPONSES, b"event: response.completed\ndata: {}\n\n", True),
        (ApiProtocol.RESPONSES, b"event: response.created\ndata: {}\n\n", False),
    ],
)
def test_each_protocol_knows_its_end(protocol: ApiProtocol, end: bytes, complete: bool) -> None:
    tail = Tail()
    tail.note(b'data: {"a":1}\n\n')
    tail.note(end)
    assert tail.has_end_mark(protocol, framed=False) is complete


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("events", [True, False])
@pytest.mark.parametrize("minor", [0, 1])
def test_an_answer_without_content_is_none_after_a_head_was_sent(
    status: bytes, events: bool, minor: int
) -> None:
    relay = Relay(HEADS_SEEN, model="m", face=FACES[ApiProtocol.OPENAI], minor=minor, own=b"x-request-id: r")
    relay.promise(events=events)
    out = relay.feed(b"HTTP/1.1 " + status + b"\r\n\r\n")
    assert relay.end is End.SAID
    assert b"HTTP/1" not in out
    assert b"has no content" in out
    assert out.endswith(b"0\r\n\r\n") is bool(minor)


HEADS = {
    "chunked": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    "close": b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
}
STREAM = b'data: {"model": "s"}\n\n' * 3 + b"data: [DONE]\n\n"


@QUICK
@given(CUTS, st.sampled_from(sorted(HEADS)), st.sampled_from([0, 1]), st.booleans(), st.booleans())
def test_a_relayed_stream_is_the_same_for_any_split(
    cuts: list[int], framing: str, minor: int, renamed: bool, committed: bool
) -> None:
    relay = Relay(HEADS_SEEN, model="m", face=FACES[ApiProtocol.OPENAI], minor=minor, own=b"x-request-id: r")
    if renamed:
        relay.echo = ModelEcho("s", "asked")
    if committed:
        relay.promise(events=True)
    body = chunk(STREAM[:50]) + chunk(STREAM[50:]) + b"0\r\n\r\n" if framing == "chunked" else STREAM
    out = b"".join(relay.feed(part) for part in split(HEADS[framing] + body, cuts))
    out += relay.eof()
    assert relay.end is End.COMPLETE
    if not committed:
        head, _, out = out.partition(b"\r\n\r\n")
        assert (b"transfer-encoding: chunked" in head) is bool(minor)
    if minor:
        scanner, payload = ChunkScanner(), list[bytes]()
        scanner.feed(out, payload)
        assert scanner.ended
        assert scanner.rest == b""
        out = b"".join(payload)
    assert out == (STREAM.replace(b'"model": "s"', b'"model":"asked"') if renamed else STREAM)
    assert relay.reusable is (framing == "chunked")


@QUICK
@given(
    st.integers(0, len(STREAM) - 1), st.sampled_from(sorted(HEADS)), st.sampled_from([0, 1]), st.booleans()
)
def test_a_stream_cut_anywhere_never_looks_complete(
    cut: int, framing: str, minor: int, renamed: bool
) -> None:
    relay = Relay(HEADS_SEEN, model="m", face=FACES[ApiProtocol.OPENAI], minor=minor, own=b"x-request-id: r")
    if renamed:
        relay.echo = ModelEcho("s", "asked")
    body = (
        b"".join(chunk(STREAM[i : i + 9]) for i in range(0, len(STREAM), 9))
        if framing == "chunked"
        else STREAM
    )
    out = relay.feed(HEADS[framing] + body[:cut]) + relay.eof()
    if STREAM.rstrip() in out.replace(b'"asked"', b' "s"'):
        return  # only the last newlines were cut off: every event is there
    assert relay.end in (End.SAID, End.CUT)
    if relay.end is End.SAID:
        assert b'"code":"answer_cut"' in out
    elif minor:
        assert not out.endswith(b"0\r\n\r\n")


@dataclass(eq=False)
class Item:
    deadline: float
    fired: list[float] = field(default_factory=list)

    def expired(self, now: float) -> None:
        self.fired.append(now)
        self.deadline = NEVER


def test_the_wheel_tells_each_item_once_its_deadline_has_passed() -> None:
    now = 10.0
    wheel = Wheel(lambda: now, None)
    early, late, gone = Item(11), Item(12), Item(11)
    for item in (early, late, gone):
        wheel.watch(item)
    wheel.forget(gone)
    wheel.tick()
    assert early.fired == []
    now = 11.5
    wheel.tick()
    wheel.tick()
    assert (early.fired, late.fired, gone.fired) == ([11.5], [], [])


@QUICK
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 60)), max_size=20))
def test_the_budget_never_exceeds_its_bounds_and_comes_back_to_zero(wanted: list[tuple[str, int]]) -> None:
    budget = BodyBudget(total=100, per_model=50)
    taken = []
    for model, size in wanted:
        if budget.take(size):
            if budget.take_model(model, size):
                taken.append((model, size))
            else:
                budget.give(size)
        assert budget.held <= 100
        assert max(budget.held_by("a"), budget.held_by("b")) <= 50
    for model, size in taken:
        budget.give_model(model, size)
        budget.give(size)
    assert (budget.held, budget.held_by("a"), budget.held_by("b")) == (0, 0, 0)


def test_buffers_are_used_again_and_what_is_kept_is_bounded() -> None:
    store = BufferStore()
    first = store.take(300_000)
    store.give(first)
    assert store.take(280_000) is first
    for _ in range(50):
        store.give(bytearray(2**23))
    assert store.kept_bytes <= 32 * 2**20
    small = bytearray(10)
    store.give(small)
    assert store.take(10) is not small
