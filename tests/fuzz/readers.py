"""What the front reads of strangers, each reader held against a reference for any input."""

from __future__ import annotations

import itertools
import random
import re
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import h11
from python_multipart.exceptions import FormParserError

from router.chunks import LAST_CHUNK, ChunkScanner, FramingError
from router.edits import make_edits
from router.head_cache import HeadCache, again
from router.heads import END, RequestHead, control_head, engine_head, parse_request_head, tunnel_head
from router.needs import EVERYTHING
from router.ports import Bytes
from router.refused import RefusedError
from router.request import Asked, read_json, read_multipart, rewritten
from tests.fuzz import references
from tests.fuzz.references import Members, UnreadableError

MOST_FIELDS = 100


def pieces_of(data: bytes) -> Iterator[list[bytes]]:
    """*data* whole, byte by byte, and cut at places that are the same for the same data."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    dice = random.Random(zlib.crc32(data))
    for _ in range(3):
        marks = sorted({0, len(data), *(dice.randrange(len(data) + 1) for _ in range(dice.randrange(1, 5)))})
        yield [data[a:b] for a, b in itertools.pairwise(marks)]


# -- request heads -----------------------------------------------------------------------------------

_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"))
"""Those that llhttp must know. Of the others it knows some, and a few are not served."""
_ENDS_HERE: Final = re.compile(
    rb"connection|keep-alive|proxy-connection|proxy-authorization|te|trailer|transfer-encoding|upgrade|host"
    rb"|http2-settings|content-length|expect|authorization|x-api-key|api-key|x-request-id|x-modelyard-.*"
)
_CONTROL_ONLY: Final = frozenset((b"cookie", b"accept-encoding", b"origin", b"referer"))
_OURS: Final = frozenset((b"host", b"content-length", b"x-request-id"))
_LENGTH: Final = re.compile(rb"(?i)\ncontent-length: (\d+)\r")


def check_head(data: bytes) -> None:
    """A head is read as RFC 9112 has it, or refused; and what goes on is one request, ours."""
    data += END
    data = data[: data.index(END) + 4]
    try:
        expected = references.read_head(data)
    except UnreadableError:
        expected = None
    try:
        head = parse_request_head(data, max_fields=MOST_FIELDS)
    except RefusedError:
        # llhttp takes a tab behind `chunked` for a part of it.
        taken = expected is not None and expected.method in _METHODS and b"chunked\t" not in data.lower()
        if taken and expected is not None and len(expected.fields) <= MOST_FIELDS:
            raise AssertionError("a proper head is refused") from None
        head = None
    _check_cache(data, head)
    if head is None:
        return
    assert expected is not None, "a head is taken that RFC 9112 forbids"
    assert (head.method, head.minor, head.length, head.chunked, head.close) == (
        expected.method, expected.minor, expected.length, expected.chunked, expected.close,
    )  # fmt: skip
    assert head.path.encode("latin-1") + head.query == expected.target
    joined: dict[bytes, bytes] = {}
    for name, value in expected.fields:
        joined[name] = joined[name] + b", " + value if name in joined else value
    if expected.host is not None:
        joined[b"host"] = expected.host
    joined.pop(b"content-length", None)
    assert head.headers == joined
    _check_forwarded(head, expected)


def _check_cache(data: bytes, head: RequestHead | None) -> None:
    """A head that is known by heart is the head that is read."""
    cache = HeadCache(lambda raw: parse_request_head(raw, max_fields=MOST_FIELDS))
    for value in (b"7", b"07", b"999999999999999"):
        # Of two heads that differ in their length only, the second is taken from memory.
        alike = _LENGTH.sub(partial(_with_length, value), data)
        try:
            cache.take(alike, len(alike))
        except RefusedError:
            pass
    try:
        taken, length = cache.take(data, len(data))
    except RefusedError:
        assert head is None, "a cached head is refused"
        return
    assert head is not None, "a head is taken from memory that is refused when it is read"
    assert again(taken, data + b"more") in ((len(data), length), None), "a head is not the one it was"
    assert length == head.length
    for name in set(RequestHead.__slots__) - {"length", "shape"}:
        assert getattr(taken, name) == getattr(head, name), name


def _with_length(value: bytes, found: re.Match[bytes]) -> bytes:
    return found[0].replace(found[1], value)


def _check_forwarded(head: RequestHead, expected: references.Head) -> None:
    """What goes to an engine or to the control app is one request, with the fields that may go on."""
    named = {
        token.strip(b" \t")
        for name, value in expected.fields
        if name == b"connection"
        for token in value.lower().split(b",")
    }
    through = [item for item in expected.fields if item[0] not in named and not _ENDS_HERE.fullmatch(item[0])]
    if not head.trace:
        through = [item for item in through if item[0] not in (b"traceparent", b"tracestate")]
    bare = [item for item in through if item[0] not in _CONTROL_ONLY]
    engine = engine_head(head, ("127.0.0.1", 1, "k", b"/v1/x"))
    _check_one(
        b"%bx-request-id: r\r\ncontent-length: %d\r\n\r\n%b" % (engine, len(_BODY), _BODY),
        _BODY,
        [*bare, (b"authorization", b"Bearer k")],
    )
    tunnel = tunnel_head(head, b"/v1/realtime", b"127.0.0.1:1", key="", id_line=b"x-request-id: r")
    _check_one(tunnel, b"", [*bare, (b"connection", b"Upgrade"), (b"upgrade", b"websocket")])
    control = control_head(head, length=len(_BODY), id_line=b"x-request-id: r")
    request = _check_one(control + _BODY, _BODY, [*through, (b"connection", b"close")])
    assert (request.method, request.target) == (expected.method, expected.target)


_BODY: Final = b"{}"


def _check_one(raw: bytes, body: bytes, fields: list[tuple[bytes, bytes]]) -> h11.Request:
    found = references.requests_in(raw)
    assert len(found) == 1, "a second request is smuggled"
    request, read = found[0]
    assert read == body
    others = sorted((name, value) for name, value in request.headers if name not in _OURS)
    assert others == sorted(fields)
    ours = sorted(name for name, _ in request.headers if name in _OURS)
    assert ours == sorted([b"host", b"x-request-id", *([b"content-length"] if body else [])])
    return request


# -- JSON bodies -------------------------------------------------------------------------------------

_EDITS: Final = make_edits(
    ("adapters", "draft_model"), {"temperature": 0}, {"top_p": 0.5, "stream": True, "temperature": 1}
)


def check_body(data: bytes) -> None:
    """A body is read as any JSON parser reads it, or refused; and only what was to be changed is changed."""
    asked = [_answer(partial(read_json, body)) for body in _variants(data)]
    EVERYTHING(data)
    try:
        expected = references.read_object(data)
    except RecursionError:
        return  # deeper than the reference can follow; it has not made us fall
    except UnreadableError:
        if any(asked):
            _check_skipped(data, asked)
        return
    assert all(_same(each, asked[0]) for each in asked), "where a body lies changes what it says"
    ours = asked[0]
    models = [value for key, value in expected if key == "model"]
    if len(models) > 1 or (models and not isinstance(models[0], str)):
        assert ours is None, "a body with no one model is taken"
        return
    if ours is None:
        assert _SURROGATE.search(data) or len(expected) > 4096, "a proper body is refused"
        return
    assert ours.model == (models[0] if models else None)
    streams = [value for key, value in expected if key == "stream"]
    assert ours.stream is (bool(streams) and streams[-1] is True)
    for body in _variants(data):
        _check_rewritten(body, expected)


def _check_skipped(data: bytes, asked: list[Asked | None]) -> None:
    """The front looks into no string that it passes over, so it takes a body whose text is malformed there;
    but never one that a reader who shrugs at that would read differently."""
    lenient = references.read_object(data, lenient=True)
    models = [value for key, value in lenient if key == "model"]
    for ours in asked:
        assert ours is None or models == ([] if ours.model is None else [ours.model])


_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
"""Half of a pair alone is JSON to Python, and no text."""


def _check_rewritten(body: Bytes, expected: Members) -> None:
    asked = read_json(body)
    assert rewritten(body, asked, model=None) == [body]
    for model in (None, 'a "name"'):
        for strip, edits in (((), None), (("adapters", "tools"), None), (("tools",), _EDITS)):
            gone = {*strip, *(edits.strip if edits else ())}
            kept = [
                (key, model if key == "model" and model is not None else value)
                for key, value in expected
                if key not in gone
            ]
            keys = {key for key, _ in kept}
            new: list[tuple[str, Any]] = []
            if model is not None and "model" not in keys:
                new.append(("model", model))
            if edits:
                new.append(("temperature", ("number", "0")))
                new += [("top_p", ("number", "0.5"))] if "top_p" not in keys else []
                new += [("stream", True)] if "stream" not in keys else []
            pieces = rewritten(body, asked, model=model, strip=strip, edits=edits or make_edits())
            assert references.read_object(b"".join(pieces)) == [*new, *kept]


def _variants(data: bytes) -> Iterator[Bytes]:
    """*data* as a small body, and in a reused buffer with what could go on with it behind it."""
    yield data
    for behind in (b"", b"--\r\n", b'":1}', b',"model":"x"}', data):
        yield memoryview(bytearray(data + behind))[: len(data)]


def _answer(read: Callable[[], Asked]) -> Asked | None:
    try:
        return read()
    except RefusedError:
        return None


def _same(one: Asked | None, other: Asked | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.model, one.stream, one.boundary) == (other.model, other.stream, other.boundary)


# -- multipart bodies --------------------------------------------------------------------------------


def check_multipart(data: bytes) -> None:
    """A form is read as engines read it, or refused. The first line of *data* is its Content-Type."""
    content_type, _, body = data.partition(b"\n")
    if content_type.strip(b" \t") != content_type or b"\r" in content_type:
        return  # no field's value
    asked = [_answer(partial(read_multipart, body, content_type)) for body in _variants(body)]
    assert all(_same(each, asked[0]) for each in asked), "where a form lies changes what it says"
    ours = asked[0]
    if ours is None:
        return
    try:
        parts = references.read_form(content_type, body)
    except (FormParserError, UnreadableError):
        # Engines refuse it: stricter than we are, and nothing was read in two ways.
        return
    assert _model_of(parts) == ours.model, "an engine would read another model"
    changed = b"".join(bytes(piece) for piece in rewritten(body, ours, model="other"))
    after = references.read_form(content_type, changed)
    assert _model_of(after) == "other"
    assert _others(after) == _others(parts)


def _model_of(parts: list[references.Part]) -> str | None:
    models = [part.value.decode("utf-8", "replace") for part in parts if part.name == b"model"]
    assert len(models) <= 1, "a form names a model twice"
    return models[0] if models else None


def _others(parts: list[references.Part]) -> list[references.Part]:
    return [part for part in parts if part.name != b"model"]


# -- chunked bodies ----------------------------------------------------------------------------------


def check_chunks(data: bytes) -> None:
    """A chunked body is decoded as RFC 9112 has it, however it is cut; what is passed on is the same body."""
    try:
        expected: references.Chunked | None = references.read_chunks(data)
    except UnreadableError:
        expected = None
    for pieces in pieces_of(data):
        scanner, payload = ChunkScanner(), list[bytes]()
        passed, rest, broken = b"", b"", False
        for piece in pieces:
            if scanner.ended:
                rest += piece
                continue
            try:
                passed += scanner.feed(piece, payload)
            except FramingError:
                broken = True
                break
            _check_passed(scanner, passed, b"".join(payload))
        whole = b"".join(payload)
        if expected is None:
            # What is no framing may still be waited for; it is never taken for an end.
            assert not scanner.ended, "framing is taken that RFC 9112 forbids"
        elif broken:
            assert _TOO_LONG.search(data), "proper framing is refused"
        else:
            assert whole == expected.payload
            assert scanner.ended is expected.ended
            assert scanner.rest + rest == expected.rest


_TOO_LONG: Final = re.compile(
    rb"[^\n]{1000}|\n0+[ \t;\r][\x00-\xff]{8000}|^0+[ \t;\r][\x00-\xff]{8000}|\n?[^0-9a-fA-F\n][^\n]*$"
)
"""Longer lines and trailers than we take; or the beginning of a line that cannot become one."""


def _check_passed(scanner: ChunkScanner, passed: bytes, payload: bytes) -> None:
    """What went on so far, ended here, is a whole body with the same content."""
    if scanner.between_chunks:
        again = references.read_chunks(passed + LAST_CHUNK)
        assert (again.payload, again.ended, again.rest) == (payload, True, b"")
    else:
        again = references.read_chunks(passed)
        assert (again.payload, again.ended) == (payload, False)
