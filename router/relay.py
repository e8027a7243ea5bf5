"""From what an engine answers to what the client gets: the relay matrix, without I/O.

| upstream framing    | client   | passes as                                             |
| chunked             | HTTP/1.1 | bytes as they are, followed by `ChunkScanner`         |
| Content-Length      | any      | bytes as they are, counted                            |
| until close         | HTTP/1.1 | chunked by us                                         |
| chunked, until close| HTTP/1.0 | decoded, until close                                  |
| any, a 200 was sent| any      | events; what is none becomes an error event           |

No answer that looks complete and is not: an event stream without its end mark, a short Content-Length, a
chunk without its end become a typed error event where one can be said, and a hard close elsewhere.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from router import refused
from router.answer_head import AnswerHead, BadAnswerError, status_line
from router.chunks import LAST_CHUNK, ChunkScanner, FramingError, chunk
from router.echo import AnswerFilter
from router.ending import End
from router.head_cache import HeadCache, again
from router.heads import END
from router.held import LIMITS, Held, as_events, in_envelope, is_document, why_held
from router.openai import Face, refusal_of
from router.ports import Refusal
from router.tail import Tail, usage_in

_HEAD_LIMIT = 65536
_INTERIM_LIMIT = 16
"""1xx answers skipped before the real one."""


# How the body passes. Plain ints: this is compared once per read of every stream.
_HEAD: Final = 0
_AS_CHUNKS: Final = 1
_AS_COUNTED: Final = 2
_DECODED: Final = 3
_HOLDING: Final = 4
_TUNNEL: Final = 5

_COMPLETE: Final = End.COMPLETE
_NOTHING: Final = Tail()
"""Never added to."""
CLOSING: Final = b"\r\nconnection: close\r\n\r\n"
"""The end of a head after which the connection closes."""


class Relay:
    """One answer on its way. Feed it what the upstream sends; write what it returns, until `end` is set."""

    __slots__ = (
        "_body", "_heads", "_left", "_length", "_mode", "_scanner", "_tail", "_unverified", "_why",
        "as_it_is", "bodyless", "close", "committed", "echo", "end", "events", "expected", "expects_done",
        "face", "framing", "head", "minor", "model", "own", "plain", "refusal", "reusable", "started",
        "status", "tunnels", "upgrades", "yields",
    )  # fmt: skip

    def __init__(
        self, heads: HeadCache[AnswerHead], *, model: str, face: Face | None, minor: int, own: bytes
    ) -> None:
        """*face* None is the control app, whose answers are not touched; *heads* parses.

        *own*: fields of ours for the answer's head, the last without its CRLF.
        """
        self._heads = heads
        self.model = model
        self.face = face
        self.minor = minor
        self.own = own
        self.as_it_is = False
        """Nothing is wanted of a success but to pass it on: the rest of what can be set here is not."""
        self.close = False
        """The client's connection ends with the answer, and it is told so."""
        self.bodyless = False
        """HEAD: the answer's head is all there is."""
        self.upgrades = False
        """A switch of protocols was asked for: after a 101 bytes pass as they come."""
        self.plain = False
        """What was promised, and begun with white space, is one JSON document and no events."""
        self.expects_done = face is not None
        """Event streams end with a mark of their own, or were cut."""
        self.echo: AnswerFilter | None = None
        self.yields: frozenset[int] = frozenset()
        """Statuses that are not passed on."""
        self.expected: AnswerHead | None = None
        """What the engine has answered with before on this connection."""
        self.committed = False
        """The client has been sent a head: by `waiting` before there was an engine, or from here."""
        self.framing = b""
        """What the client reads: b"chunked", b"length", b"close"."""
        self.head: AnswerHead | None = None
        self.status = 0
        self.end: End | None = None
        self.refusal: Refusal | None = None
        self.reusable = False
        """The upstream's connection may carry another request."""
        self.started = False
        """A byte came from upstream."""
        self.events = False
        """The client reads an event stream."""
        self._mode = _HEAD
        self._why = Held.ERROR
        self._body = b""
        """Bytes of an incomplete head, later the body held."""
        self._left = 0
        self._length: int | None = None
        """Content-Length of the answer, as the client is told it."""
        self._scanner: ChunkScanner | None = None
        self._tail = _NOTHING
        """Of a body that does not come in one piece."""
        self._unverified = False
        """A JSON document too large to hold, without a length: its last byte decides."""
        self.tunnels = False
        """The protocol was switched."""

    def promise(self, *, events: bool) -> None:
        """The client has been sent a 200 and the beginning of an event stream, or of a JSON document."""
        self.committed = True
        self.events = events
        self.plain = not events
        self.framing = b"chunked" if self.minor else b"close"

    # -- in --------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> bytes:
        """Bytes for the client out of *data* from upstream; `end` is set when there will be no more."""
        mode = self._mode
        if mode == _AS_CHUNKS:
            scanner = self._scanner
            assert scanner is not None  # set with the mode
            return self._feed_chunks(scanner, data)
        if mode == _AS_COUNTED:
            return self._feed_counted(data)
        if mode == _HEAD:
            return self._feed_head(data)
        if mode == _TUNNEL:
            return data
        return self._feed_payload(data)

    def whole_chunks(self) -> deque[bytes] | None:
        """Where whole chunks may be noted that go on as they are, without a `feed`, for as long as each read
        is exactly one; None: everything is to be fed."""
        scanner = self._scanner
        if self._mode != _AS_CHUNKS or self.end is not None or scanner is None or not scanner.fresh:
            return None
        return self._tail.chunks

    def eof(self) -> bytes:
        """The upstream's connection has ended."""
        if self.end is not None:
            return b""
        self.reusable = False
        head = self.head
        if head is None:
            return self.fail(refused.bad_answer(self.model, "it ended inside its head"))
        if self._mode == _TUNNEL:
            self.end = End.COMPLETE
            return b""
        if self._length is None and not head.chunked:
            return self._finish()
        if self._mode == _HOLDING and self._why in (Held.ERROR, Held.EVENT):
            return self._finish()  # the status is what counts, and it is here
        return self.fail(refused.answer_cut(self.model))

    def fail(self, refusal: Refusal) -> bytes:
        """End the answer now, and say *refusal* if anything can still be said."""
        self.reusable = False
        self.refusal = refusal
        if not self.committed:
            self.end = End.REFUSED
            return b""
        if self.face is None or not self._can_speak():
            self.end = End.CUT
            return b""
        self.end = End.SAID
        said = self.face.error_body(refusal) if self.plain else self.face.error_event(refusal)
        return self._frame(said) + self._last()

    def usage(self) -> tuple[int, int]:
        """Tokens (prompt, completion) as the answer's end tells them."""
        if self._tail is _NOTHING:
            return usage_in(self._body, events=self.events)
        return self._tail.usage(events=self.events)

    # -- head ------------------------------------------------------------------------------------

    def _feed_head(self, data: bytes) -> bytes:
        self.started = True
        expected = self.expected
        if expected is not None and expected.plain and not (self.committed or self._body):
            found = again(expected, data)
            if found is not None:
                end, self._length = found
                return self._pass_on(expected, data[end:])
        if self._body:
            data = self._body + data
            self._body = b""
        for _ in range(_INTERIM_LIMIT):
            end = data.find(END)
            if end < 0:
                if len(data) > _HEAD_LIMIT:
                    return self.fail(refused.bad_answer(self.model, "its head is too large"))
                self._body = data
                return b""
            try:
                head, length = self._heads.take(data, end + 4)
            except BadAnswerError as error:
                return self.fail(refused.bad_answer(self.model, str(error)))
            data = data[end + 4 :]
            if self.as_it_is and head.plain and not self.committed:
                self._length = length
                return self._pass_on(head, data)
            if head.status == 101:
                return self._switch(head, data)
            if head.status >= 200:
                self._length = length
                return self._begin(head, data)
        return self.fail(refused.bad_answer(self.model, "it sends interim answers without end"))

    def _pass_on(self, head: AnswerHead, data: bytes) -> bytes:
        """What nearly every answer comes to: `_begin`, `_open` and `_commit` where there is nothing to do."""
        self.head = head
        self.status = head.status
        self.reusable = head.keep_alive
        length = self._length
        if length is None:
            self._scanner = ChunkScanner()
            return self._open(head, data)
        self.committed = True
        self.framing = b"length"
        self.events = head.is_events
        self._mode = _AS_COUNTED
        left = length - len(data)
        if left > 0:
            self._left = left
            self._tail = Tail()
            self._tail.note(data)
        else:
            if left:
                self.reusable = False
                data = data[:left]
            self._body = data
            self.end = _COMPLETE
        return b"%b%b\r\ncontent-length: %d%b%b" % (
            head.opening, self.own, length, CLOSING if self.close else END, data,
        )  # fmt: skip

    def _switch(self, head: AnswerHead, data: bytes) -> bytes:
        """RFC 9110 15.2.2."""
        if not self.upgrades:
            return self.fail(refused.bad_answer(self.model, "it switches protocols, and nobody asked it to"))
        self.head = head
        self.status = 101
        self.committed = self.close = True
        self._mode = _TUNNEL
        self.tunnels = True
        fields = (
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n",
            head.fields,
        )
        return b"".join((*fields, self.own, END, data))

    def _begin(self, head: AnswerHead, data: bytes) -> bytes:
        """Choose how *head*'s body passes, and feed it the first of it."""
        self.head = head
        self._tail = Tail()
        if head.status in self.yields:
            self.end, self.refusal = End.YIELDED, refusal_of(head.status, b"")
            return b""
        self.reusable = head.keep_alive and not self.upgrades
        if not self.committed:
            self.status = head.status
        if self.bodyless or head.status in (204, 304):
            if self.committed:
                # The client has a head, and is owed what it promised.
                return self.fail(refused.bad_answer(self.model, f"a {head.status} has no content"))
            self.end = End.COMPLETE
            self.reusable = self.reusable and not data
            # RFC 9110 8.6: 204 has no length, and 304's would be that of another answer.
            return self._commit(head, b"length" if self.bodyless and self._length is not None else b"")
        if head.chunked:
            self._scanner = ChunkScanner()
        else:
            self._left = self._length or 0
        if self.face is not None:
            counted, renamed = self._length is not None, self.echo is not None
            whole = self.echo is not None and self.echo.whole
            promised = self.committed and not self.plain
            why = why_held(
                head, committed=promised, counted=counted, renamed=renamed and not self.plain, whole=whole
            )
            if self.plain and head.status != 200:
                why = Held.EVENT
            if why is not None:
                self._mode, self._why = _HOLDING, why
                return self._feed_payload(data) if data or self._length == 0 else b""
        return self._open(head, data)

    def _open(self, head: AnswerHead, data: bytes) -> bytes:
        """Send the head, choose the passing mode, pass the first bytes."""
        out = b""
        if self._tail is _NOTHING:
            self._tail = Tail()
        if self.committed:
            as_it_is = self.framing == b"chunked" and head.chunked and self.echo is None
            self._mode = _AS_CHUNKS if as_it_is else _DECODED
        elif self._length is not None:
            self._mode = _AS_COUNTED
            out = self._commit(head, b"length")
        else:
            as_it_is = head.chunked and self.minor == 1 and self.echo is None
            self._mode = _AS_CHUNKS if as_it_is else _DECODED
            out = self._commit(head, b"chunked" if self.minor else b"close")
        if data or self._length == 0:
            out += self.feed(data)
        return out

    def _commit(self, head: AnswerHead, framing: bytes, *, fields: bytes | None = None) -> bytes:
        if self.plain:
            return b""  # the head is on its way since the first white space
        self.committed = True
        self.framing = framing
        self.events = head.is_events
        parts = [head.opening] if fields is None else [status_line(head.status), fields]
        parts.append(self.own)
        if framing == b"length":
            parts.append(b"\r\ncontent-length: %d" % (self._length or 0))
        elif framing == b"chunked":
            parts.append(b"\r\ntransfer-encoding: chunked")
        parts.append(CLOSING if self.close else END)
        return b"".join(parts)

    # -- bodies as they are ----------------------------------------------------------------------

    def _feed_chunks(self, scanner: ChunkScanner, data: bytes) -> bytes:
        pieces: list[bytes] = []
        try:
            out = scanner.feed(data, pieces)
        except FramingError as error:
            return self.fail(refused.bad_answer(self.model, str(error)))
        for piece in pieces:
            self._tail.note(piece)
        if scanner.ended:
            return out + self._finish() if out else self._finish()
        return out

    def _feed_counted(self, data: bytes) -> bytes:
        left = self._left = self._left - len(data)
        if left <= 0:
            if left < 0:
                self.reusable = False
                data = data[:left]
            self.end = _COMPLETE
        self._tail.note(data)
        return data

    # -- bodies taken apart ----------------------------------------------------------------------

    def _feed_payload(self, data: bytes) -> bytes:
        head, scanner = self.head, self._scanner
        assert head is not None  # set before the mode
        ended = False
        if scanner is not None:
            pieces: list[bytes] = []
            try:
                scanner.feed(data, pieces)
            except FramingError as error:
                return self.fail(refused.bad_answer(self.model, str(error)))
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            ended = scanner.ended
        elif self._length is not None:
            self._left -= len(data)
            if self._left < 0:
                self.reusable = False
                data = data[: self._left]
                self._left = 0
            ended = self._left == 0
        out = self._hold(head, data, ended=ended) if self._mode == _HOLDING else self._pass(data)
        if ended and self.end is None:
            out += self._finish()
        return out

    def _pass(self, payload: bytes) -> bytes:
        if not payload:
            return b""
        self._tail.note(payload)
        if self.echo is not None:
            payload = self.echo.feed(payload)
        return self._frame(payload)

    def _frame(self, payload: bytes) -> bytes:
        return chunk(payload) if payload and self.framing == b"chunked" else payload

    def _last(self) -> bytes:
        return LAST_CHUNK if self.framing == b"chunked" else b""

    def _hold(self, head: AnswerHead, payload: bytes, *, ended: bool) -> bytes:
        """Keep *payload*; let go of what is kept once it is understood or too large."""
        body = self._body = self._body + payload
        why = self._why
        if why is Held.NAME:
            return self._hold_name(head, body, ended=ended)
        if len(body) <= LIMITS[why]:
            return b""
        if why is Held.EVENT:
            self._body = body[: LIMITS[why]]
            return b""
        if why is Held.WRAP:
            return self.fail(
                refused.bad_answer(self.model, "it is no event stream, though one was asked for")
            )
        self._body = b""
        if why is Held.WHOLE:
            self.echo = None
        self._unverified = why is Held.DOCUMENT
        self._mode = _DECODED
        framing = b"length" if self._length is not None else b"chunked" if self.minor else b"close"
        return self._commit(head, framing) + self._pass(body)

    def _hold_name(self, head: AnswerHead, body: bytes, *, ended: bool) -> bytes:
        """Wait for the model's name, put the asked one there, and pass the rest as it is."""
        assert self.echo is not None  # what it is held for
        assert self._length is not None
        changed = self.echo.replace_once(body)
        if changed is None and not ended and len(body) <= LIMITS[Held.NAME]:
            return b""
        self.echo = None
        self._body = b""
        if changed is not None:
            self._length += len(changed) - len(body)
            body = changed
        self._left += len(body)
        return self._open(head, body)

    # -- the end ---------------------------------------------------------------------------------

    def _finish(self) -> bytes:
        """The upstream has ended its answer properly, as far as framing goes."""
        head, face, scanner, tail = self.head, self.face, self._scanner, self._tail
        assert head is not None  # only called once there is one
        if scanner is not None and scanner.rest:
            self.reusable = False
        if self._mode == _HOLDING:
            return self._finish_held(head)
        cut = self._unverified and not tail.closes_json
        if self.events and self.expects_done and face is not None:
            cut = cut or not tail.has_end_mark(face.protocol, framed=head.chunked)
        if cut:
            reusable = self.reusable
            out = self.fail(refused.answer_cut(self.model))
            self.reusable = reusable
            return out
        self.end = End.COMPLETE
        held_back = b"" if self.echo is None else self._frame(self.echo.flush())
        return held_back + self._last()

    def _finish_held(self, head: AnswerHead) -> bytes:
        face, body, why = self.face, self._body, self._why
        assert face is not None  # the control app's answers are never held
        self._body = b""
        if why is Held.EVENT:
            reusable = self.reusable
            out = self.fail(refusal_of(head.status, body))
            self.reusable = reusable
            return out
        if why in (Held.DOCUMENT, Held.WHOLE, Held.WRAP) and not is_document(body):
            return self.fail(refused.answer_cut(self.model))
        self._tail.note(body)
        self.end = End.COMPLETE
        if why is Held.WRAP:
            return self._frame(as_events(body)) + self._last()
        fields = head.fields
        if why is Held.ERROR:
            fields, body = in_envelope(head, face, body)
        elif self.echo is not None:
            body = self.echo.replace_once(body) or body
        self._length = len(body)
        return (
            self._commit(head, b"length", fields=fields)
            + self._frame(body)
            + (self._last() if self.plain else b"")
        )

    def _can_speak(self) -> bool:
        """Whether the client reads events, and is between two of them; or none of its document has come."""
        if self.plain:
            return self._mode in (_HEAD, _HOLDING)
        if not self.events or self.framing == b"length":
            return False
        if self._mode == _AS_CHUNKS and self._scanner is not None and not self._scanner.between_chunks:
            return False
        return self._tail.between_events
