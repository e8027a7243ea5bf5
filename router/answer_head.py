"""Answer heads: what upstreams may say, and what of it clients get. Pure."""

from __future__ import annotations

from http import HTTPStatus

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from router.head_cache import Shape

_DROPPED = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade "
    b"content-length x-request-id".split()
)
"""Hop-by-hop, or ours to write."""

_NOT_THEIRS = (b"access-control-", b"set-cookie")

_STATUS_LINES = {s.value: b"HTTP/1.1 %d %s\r\n" % (s.value, s.phrase.encode()) for s in HTTPStatus}


def status_line(status: int) -> bytes:
    """The first line of an answer, with its CRLF."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


class BadAnswerError(Exception):
    """What the upstream sent is not an HTTP/1.x answer we can pass on; the message says why."""


class AnswerHead:
    """The head of an upstream's answer, checked; not changed once it is parsed, since answers share it."""

    __slots__ = (
        "chunked", "complete", "content_type", "fault", "fields", "is_events", "is_json", "keep_alive",
        "kept", "length", "minor", "named", "opening", "plain", "shape", "status", "varies",
    )  # fmt: skip

    def __init__(self) -> None:
        self.status = 0
        self.minor = 1
        self.kept: list[bytes] = []
        """Field lines that may go to the client."""
        self.fields = b""
        """The same, joined."""
        self.opening = b""
        """The status line, and `fields`."""
        self.plain = False
        """Its body passes as it is, if nobody wants anything of it: a success, of known end."""
        self.length: int | None = None
        """Content-Length of the answer that was parsed; `HeadCache` tells that of the one at hand."""
        self.chunked = False
        self.keep_alive = True
        self.named: set[bytes] = set()
        """What Connection names: options, and fields that go no further."""
        self.content_type = b""
        self.is_events = False
        self.is_json = False
        self.varies = False
        self.shape: Shape | None = None
        """See `router.head_cache`."""
        self.complete = False
        self.fault = ""

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        value = value.rstrip(b" \t")  # RFC 9110 5.5: no part of it, and llhttp leaves it there
        if key in _DROPPED:
            if key == b"content-length":
                if self.length is not None or not value.isdigit():
                    self.fault = "its Content-Length is not one number"
                else:
                    self.length = int(value)
            elif key == b"transfer-encoding":
                if self.chunked or value.lower() != b"chunked":
                    self.fault = "its Transfer-Encoding is not chunked"
                self.chunked = True
            elif key == b"connection":
                self.named |= {token.strip() for token in value.lower().split(b",")}
            return
        if key == b"content-type":
            self.content_type = value.lower()
        self.kept.append(name + b": " + value + b"\r\n")

    def on_headers_complete(self) -> None:
        self.complete = True

    def untyped_fields(self) -> bytes:
        """`fields` without Content-Type."""
        return b"".join(line for line in self.kept if line[:13].lower() != b"content-type:")


def parse_engine_head(data: bytes) -> AnswerHead:
    """The same for an engine, without its word on who may read us from a browser (mlx_lm.server: everybody),
    and without cookies: they would be ours, and its own never reach it."""
    head = parse_answer_head(data)
    fields = head.fields.lower()
    if b"access-control-" in fields or b"set-cookie" in fields:
        head.kept = [line for line in head.kept if not line.lower().startswith(_NOT_THEIRS)]
        head.fields = b"".join(head.kept)
        head.opening = status_line(head.status) + head.fields
    return head


def parse_answer_head(data: bytes) -> AnswerHead:
    """The head of an answer in *data*, which ends with its empty line. Raises `BadAnswerError`."""
    head = AnswerHead()
    parser = HttpResponseParser(head)
    try:
        parser.feed_data(data)
    except HttpParserUpgrade:
        pass
    except HttpParserError as error:
        raise BadAnswerError(f"its head is malformed: {error}") from None
    if not head.complete:
        raise BadAnswerError("its head has no end")
    if head.fault:
        raise BadAnswerError(head.fault)
    if head.chunked and head.length is not None:
        raise BadAnswerError("it has both Content-Length and Transfer-Encoding")
    version = parser.get_http_version()
    if version == "1.0":
        head.minor = 0
        head.keep_alive = False
        if head.chunked:
            raise BadAnswerError("it is HTTP/1.0 and chunked")
    elif version != "1.1":
        raise BadAnswerError(f"it speaks HTTP/{version}")
    head.status = parser.get_status_code()
    if not 100 <= head.status <= 599:
        raise BadAnswerError(f"{head.status} is no status (RFC 9110 15)")
    if head.named:
        head.keep_alive = head.keep_alive and b"close" not in head.named
        head.kept = [line for line in head.kept if line.partition(b":")[0].lower() not in head.named]
    head.fields = b"".join(head.kept)
    head.is_events = head.content_type.startswith(b"text/event-stream")
    head.is_json = head.content_type.startswith(b"application/json")
    head.opening = status_line(head.status) + head.fields
    head.plain = 200 <= head.status < 300 and head.status != 204 and (head.chunked or head.length is not None)
    return head
