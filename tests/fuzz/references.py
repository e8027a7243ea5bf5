"""Slow and simple readers of what the front reads fast: other code, the same rules. Fuzzing compares the two.

Each is written from the grammar of its RFC, byte by byte where that is the plainest, and shares nothing with
the product. Two of them are other people's parsers, since it is an engine's parser that must not see another
request than we do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

import h11
from python_multipart.multipart import MultipartParser, parse_options_header

TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
VISIBLE = frozenset(range(0x21, 0x7F))
FIELD_BYTES = frozenset((0x09, *range(0x20, 0x7F), *range(0x80, 0x100)))
AUTHORITY = frozenset(b"._~%!$&'()*+,;=:[]-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
ONCE = frozenset(
    (
        b"host",
        b"content-length",
        b"content-type",
        b"authorization",
        b"x-api-key",
        b"transfer-encoding",
        b"expect",
    )
)


class UnreadableError(Exception):
    """What a strict reader refuses, and why."""


# -- request heads (RFC 9112 2-6) --------------------------------------------------------------------


@dataclass
class Head:
    """A request head as it stands there."""

    method: bytes
    target: bytes
    """In origin form, or `*`."""
    minor: int
    fields: list[tuple[bytes, bytes]]
    """Lower-case names; values without the white space around them."""
    host: bytes | None
    length: int | None = None
    chunked: bool = False
    close: bool = False


def read_head(data: bytes) -> Head:
    """The head in *data*, which ends with its empty line. Raises `UnreadableError`."""
    if not data.endswith(b"\r\n\r\n"):
        raise UnreadableError("no end")
    line, *field_lines = data[:-4].split(b"\r\n")
    if b"\r" in line or b"\n" in line:
        raise UnreadableError("a bare CR or LF")
    words = line.split(b" ")
    if len(words) != 3 or not words[0] or not set(words[0]) <= TOKEN:
        raise UnreadableError("the request line")
    method, target, version = words
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise UnreadableError("the version")
    fields = [_read_field(field_line) for field_line in field_lines]
    minor = int(version[-1:])
    head = Head(method, target, minor, fields, host=None)
    given = _single_fields(fields)
    _read_host(head, given)
    _read_framing(head, given)
    head.close = minor == 0 or b"close" in [
        token.strip(b" \t")
        for name, value in fields
        if name == b"connection"
        for token in value.lower().split(b",")
    ]
    return head


def _read_field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not name or not set(name) <= TOKEN:
        raise UnreadableError("a field name")
    if not set(value) <= FIELD_BYTES:
        raise UnreadableError("a field value")
    return name.lower(), value.strip(b" \t")


def _single_fields(fields: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    given: dict[bytes, bytes] = {}
    for name, value in fields:
        if name in ONCE:
            if name in given:
                raise UnreadableError("a field twice")
            given[name] = value
    return given


def _read_host(head: Head, given: dict[bytes, bytes]) -> None:
    head.host = given.get(b"host")
    if head.host is None and head.minor:
        raise UnreadableError("no Host")
    if head.host is not None and not set(head.host) <= AUTHORITY:
        raise UnreadableError("Host")
    target = head.target
    if not target or not set(target) <= VISIBLE or b"#" in target:
        raise UnreadableError("the target")
    if target.startswith(b"/") or (target == b"*" and head.method == b"OPTIONS"):
        return
    scheme, mark, rest = target.partition(b"://")
    if not mark or scheme.lower() not in (b"http", b"https"):
        raise UnreadableError("the target's form")
    ends = [at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0]
    end = min(ends, default=len(rest))
    if end == 0 or not set(rest[:end]) <= AUTHORITY:
        raise UnreadableError("the target's authority")
    head.host = rest[:end]
    head.target = rest[end:] if rest[end : end + 1] == b"/" else b"/" + rest[end:]


def _read_framing(head: Head, given: dict[bytes, bytes]) -> None:
    length, coding = given.get(b"content-length"), given.get(b"transfer-encoding")
    if length is not None:
        if not length or not set(length) <= frozenset(b"0123456789") or len(length) > 15:
            raise UnreadableError("Content-Length")
        head.length = int(length)
    if coding is not None:
        if length is not None or head.minor == 0 or coding.lower() != b"chunked":
            raise UnreadableError("Transfer-Encoding")
        head.chunked = True
    if given.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise UnreadableError("Expect")


def requests_in(data: bytes) -> list[tuple[h11.Request, bytes]]:
    """The requests h11 finds in *data*, with their bodies. Raises `h11.RemoteProtocolError`."""
    found: list[tuple[h11.Request, bytes]] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    connection.receive_data(data)
    body = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            found.append((event, b""))
            body = b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            found[-1] = (found[-1][0], body)
            rest = connection.trailing_data[0]
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
            connection.receive_data(rest)
            if not rest:
                return found
        else:
            raise UnreadableError(f"h11 stops at {event}")


# -- chunked bodies (RFC 9112 7.1) -------------------------------------------------------------------


@dataclass
class Chunked:
    """What a chunked body holds."""

    payload: bytes
    ended: bool
    """The last chunk and the trailers were there; otherwise more may come."""
    rest: bytes


def read_chunks(data: bytes) -> Chunked:
    """The chunked body that *data* begins with. Raises `UnreadableError`."""
    payload, pos = b"", 0
    while True:
        end = data.find(b"\n", pos)
        if end < 0:
            return Chunked(payload, ended=False, rest=b"")
        size = _chunk_size(data[pos : end + 1])
        pos = end + 1
        if size == 0:
            return _read_trailers(data, pos, payload)
        payload += data[pos : pos + size]
        after = data[pos + size : pos + size + 2]
        if after != b"\r\n"[: len(after)]:
            raise UnreadableError("no CRLF after a chunk")
        if len(after) < 2:
            return Chunked(payload, ended=False, rest=b"")
        pos += size + 2


def _chunk_size(line: bytes) -> int:
    if not line.endswith(b"\r\n"):
        raise UnreadableError("a size line ends with a bare LF")
    digits, semicolon, extension = line[:-2].partition(b";")
    if semicolon:
        digits = digits.rstrip(b" \t")
    if not digits or not set(digits) <= frozenset(b"0123456789abcdefABCDEF") or len(digits) > 15:
        raise UnreadableError("a chunk size")
    if not set(extension) <= FIELD_BYTES:
        raise UnreadableError("a chunk extension")
    return int(digits, 16)


def _read_trailers(data: bytes, pos: int, payload: bytes) -> Chunked:
    while True:
        end = data.find(b"\r\n", pos)
        if end < 0:
            return Chunked(payload, ended=False, rest=b"")
        if end == pos:
            return Chunked(payload, ended=True, rest=data[end + 2 :])
        line = data[pos:end]
        name, colon, value = line.partition(b":")
        if not colon or not name or not set(name) <= TOKEN or not set(value) <= FIELD_BYTES:
            raise UnreadableError("a trailer field")
        pos = end + 2


# -- JSON (RFC 8259) ---------------------------------------------------------------------------------


class Members(list[tuple[str, Any]]):
    """An object, with members that stand there twice."""


def read_object(body: bytes, *, lenient: bool = False) -> Members:
    """The JSON object in *body*; numbers stay text. A *lenient* reader takes any bytes and control
    characters in a string. Raises `UnreadableError`, `RecursionError`."""

    def never(name: str) -> NoReturn:
        raise UnreadableError(f"{name} is no JSON")

    try:
        found = json.loads(
            body.decode("utf-8", "replace" if lenient else "strict"),
            strict=not lenient,
            object_pairs_hook=Members,
            parse_constant=never,
            parse_int=lambda text: ("number", text),
            parse_float=lambda text: ("number", text),
        )
    except ValueError as error:
        raise UnreadableError(str(error)) from None
    if not isinstance(found, Members):
        raise UnreadableError("no object")
    return found


# -- multipart (RFC 7578), as engines read it ----------------------------------------------------------


@dataclass
class Part:
    """One part of a form."""

    name: bytes | None
    value: bytes


def read_form(content_type: bytes, body: bytes) -> list[Part]:
    """The parts of *body*, by the parser that FastAPI and so every engine of ours has, used as Starlette
    uses it. Raises what that raises."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise UnreadableError("no multipart/form-data with a boundary")
    form = _Form()
    parser = MultipartParser(options[b"boundary"], form.callbacks())
    parser.write(body)
    parser.finalize()
    if not form.ended:
        raise UnreadableError("the form has no end")
    return form.parts


class _Form:
    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._field = self._value = b""
        self._disposition: bytes | None = None

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self.parts.append(Part(None, b""))
        self._disposition = None

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].value += data[start:end]

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        if self._disposition is None:
            raise UnreadableError("a part without Content-Disposition")
        _, options = parse_options_header(self._disposition)
        self.parts[-1].name = options.get(b"name")

    def _end(self) -> None:
        self.ended = True
