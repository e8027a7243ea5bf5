"""Request heads: what we accept of clients, what we drop, and what engines and the control app get. Pure.

llhttp (through httptools) checks every byte of a head; this module adds the policy llhttp does not have: one
Host, only `chunked` as a transfer coding, counted fields, single-valued fields. A head is always parsed
alone, up to its empty line, so that bodies, trailers, pipelining and upgrades never pass through llhttp.
"""

from __future__ import annotations

import re

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from registry.capability import ENDPOINTS, RESPONSES, TUNNELS, UPSTREAM, Endpoint, Protocol, special_endpoint
from router.head_cache import Shape
from router.openai import FACES
from router.ports import Refusal
from router.refused import RefusedError, bad_request, encoded_body, method_unsupported, websocket

END = b"\r\n\r\n"

_DROPPED = frozenset(
    b"connection keep-alive proxy-connection proxy-authorization te trailer transfer-encoding upgrade "
    b"http2-settings host content-length expect authorization x-api-key api-key x-request-id".split()
)
"""Request fields that end here: hop-by-hop, ours to write, or the client's credentials."""

_CONTROL_ONLY = frozenset(b"cookie accept-encoding origin referer".split())
"""Fields the control app needs and an engine must not see: cookies of our web page, and an encoding that
would hide the events of a stream from us."""

_SINGLE = frozenset(
    b"host content-length content-type authorization x-api-key transfer-encoding expect".split()
)
"""Twice one of these has two readings; we take none."""

_REQUEST_LINE = re.compile(rb"[A-Z-]+ [\x21-\x7e]+ HTTP/1\.[01]\r\n")
"""RFC 9112 3. llhttp also takes several spaces, bytes beyond ASCII, and other protocols' names."""
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")
_AUTHORITY_END = re.compile(rb"[/?]")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_KNOWN_CONNECTION = frozenset((b"close", b"keep-alive", b"upgrade", b"te", b""))


_NOT_SERVED = frozenset((b"CONNECT", b"TRACE"))
"""This is no forward proxy, and what TRACE would echo are the caller's credentials."""

_TRACE = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context 3.2.2, version 00; later versions may be longer, and begin like this."""

_VARYING = (b"x-request-id", b"traceparent", b"idempotency-key")


EngineTarget = tuple[str, int, str, bytes]
"""Host and port of an engine, the key it wants, and the path (with its query) it has."""


class RequestHead:
    """A request's head, checked; not changed once it is parsed, since requests with the same head share it.

    `headers` has lower-case names and no Content-Length; repeated list fields are joined by commas.
    """

    __slots__ = (
        "chunked", "close", "complete", "control_kept", "endpoint", "face", "fault", "fields", "given_id",
        "headers", "kept", "known", "length", "method", "minor", "path", "plain", "query", "sent", "sent_to",
        "shape", "special", "target", "trace", "verb", "wants_websocket",
    )  # fmt: skip

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.path = ""
        self.query = b""
        self.minor = 1
        self.headers: dict[bytes, bytes] = {}
        self.kept: list[bytes] = []
        """Field lines that may go on."""
        self.fields = b""
        """The same, joined."""
        self.control_kept: list[bytes] = []
        """Further field lines for the control app."""
        self.length: int | None = None
        """Content-Length of the request that was parsed; `HeadCache` tells that of the one at hand."""
        self.chunked = False
        self.close = False
        self.special = False
        """It wants an upgrade, encodes its body, or is about something that its path or body names besides a
        model: to be looked at before the body is read."""
        self.wants_websocket = False
        """An upgrade to WebSocket; any other upgrade is ignored, as RFC 9110 7.8 allows."""
        self.trace = ""
        """Trace id of a W3C trace context; it goes through as it came."""
        self.complete = False
        self.fault = ""
        # What follows from the rest, found once for all requests with this head.
        self.verb = ""
        """`method` as text."""
        self.endpoint: Endpoint | None = None
        """None: the control app's."""
        self.face = FACES[Protocol.OPENAI]
        self.given_id: str | None = None
        """The client's own request id, if it is one we can put into a log line."""
        self.plain = False
        """Nothing but its key is to be looked at before the body is read."""
        self.shape: Shape | None = None
        """See `router.head_cache`."""
        self.known: object = None
        """What the authorizer remembers of it."""
        self.sent = b""
        """What `engine_head` made of it last,"""
        self.sent_to: EngineTarget | None = None
        """and for which."""

    # httptools' callbacks

    def on_url(self, url: bytes) -> None:
        if self.complete:
            self.fault = "a second request inside the first one's head"
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        value = value.rstrip(b" \t")  # RFC 9110 5.5: no part of it, and llhttp leaves it there
        headers = self.headers
        if key in headers:
            if key in _SINGLE:
                self.fault = f"more than one {key.decode()} field"
            headers[key] = headers[key] + b", " + value
        else:
            headers[key] = value
        if key in _DROPPED:
            return
        if key in _CONTROL_ONLY:
            self.control_kept.append(name + b": " + value + b"\r\n")
        elif not key.startswith(b"x-modelyard-"):
            self.kept.append(name + b": " + value + b"\r\n")

    def on_headers_complete(self) -> None:
        self.complete = True

    @property
    def varies(self) -> bool:
        """No second request will have the same head."""
        return any(name in self.headers for name in _VARYING)

    @property
    def wants_continue(self) -> bool:
        """The client waits for `100 Continue` before it sends the body."""
        return self.minor == 1 and self.headers.get(b"expect", b"").lower() == b"100-continue"


def parse_request_head(data: bytes, *, max_fields: int) -> RequestHead:
    """The head in *data*, which ends with its empty line.

    Raises `RefusedError` with the status for the client; after any of those the connection must be closed.
    """
    head = RequestHead()
    parser = HttpRequestParser(head)
    try:
        parser.feed_data(data)
    except HttpParserUpgrade:
        pass  # raised after headers-complete; the body, if any, is read by us
    except HttpParserError as error:
        raise RefusedError(bad_request(f"malformed request head: {error}")) from None
    if data.startswith(b"PRI * HTTP/2"):
        raise RefusedError(_version_refusal("2"))  # llhttp waits for the rest of the preface
    if not head.complete or head.fault:
        raise RefusedError(bad_request(f"malformed request head: {head.fault or 'it has no end'}"))
    version = parser.get_http_version()
    if version == "1.0":
        head.minor = 0
        head.close = True
    elif version != "1.1":
        raise RefusedError(_version_refusal(version))
    if _REQUEST_LINE.match(data) is None:
        raise RefusedError(bad_request("the request line is malformed"))
    fields = data.count(b"\r\n") - 2
    if fields > max_fields:
        message = f"the request has {fields} header fields; the limit is {max_fields} (limits.header_count)"
        raise RefusedError(Refusal(431, "too_many_headers", message))
    head.method = parser.get_method()
    if head.method in _NOT_SERVED:
        raise RefusedError(method_unsupported(head.method.decode()))
    _check(head)
    if b"traceparent" in head.headers:
        _check_trace(head, head.headers[b"traceparent"])
    head.fields = b"".join(head.kept)
    head.wants_websocket = b"websocket" in head.headers.get(b"upgrade", b"").lower()
    head.special = b"upgrade" in head.headers or b"content-encoding" in head.headers
    _conclude(head)
    return head


def _conclude(head: RequestHead) -> None:
    """Set what follows from a head that is otherwise complete."""
    headers = head.headers
    head.verb = head.method.decode()
    if head.special and head.wants_websocket:
        head.endpoint = TUNNELS.get(head.path) if head.method == b"GET" else None
    elif head.method == b"POST":
        head.endpoint = ENDPOINTS.get(head.path)
        head.special = head.special or head.endpoint is RESPONSES
    if head.endpoint is None:
        head.endpoint = special_endpoint(head.path, head.verb)
        if head.wants_websocket and head.endpoint is not UPSTREAM:
            head.endpoint = None
        head.special = head.special or head.endpoint is not None
    if head.endpoint is not None:
        head.face = FACES[head.endpoint.protocol]
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given) is not None:
        head.given_id = given.decode()
    head.plain = not head.special and not head.chunked and b"origin" not in headers


def _version_refusal(version: str) -> Refusal:
    return Refusal(505, "http_version", f"HTTP/{version} is not spoken here; use HTTP/1.1")


def _check(head: RequestHead) -> None:
    """The policy llhttp does not have; sets what the body and the connection depend on."""
    headers = head.headers
    host = headers.get(b"host")
    if host is None:
        if head.minor:
            raise RefusedError(bad_request("an HTTP/1.1 request needs a Host field"))
    elif _HOST.fullmatch(host) is None:
        raise RefusedError(bad_request("the Host field is malformed"))
    target = head.target
    if not target.startswith(b"/"):
        target = _origin_form(head, target)
    if b"#" in target:
        raise RefusedError(bad_request("a request target has no fragment"))
    if b"?" in target:
        path, mark, query = target.partition(b"?")
        head.path = path.decode("latin-1")
        head.query = mark + query
    else:
        head.path = target.decode("latin-1")
    length = headers.pop(b"content-length", None)
    if length is not None:
        if not length.isdigit() or len(length) > 15:
            raise RefusedError(bad_request("the Content-Length field is malformed"))
        head.length = int(length)
    if b"transfer-encoding" in headers:
        _check_coding(head, headers[b"transfer-encoding"])
    if b"expect" in headers and headers[b"expect"].lower() != b"100-continue":
        raise RefusedError(Refusal(417, "expectation_failed", "the only expectation known is 100-continue"))
    if b"connection" in headers:
        _obey_connection(head, headers[b"connection"])


def _origin_form(head: RequestHead, target: bytes) -> bytes:
    """The path of an absolute target, whose authority replaces the Host field (RFC 9112 3.2.2)."""
    if target == b"*":
        if head.method != b"OPTIONS":
            raise RefusedError(bad_request("the request target * is for OPTIONS only"))
        return target
    if not target[:8].lower().startswith((b"http://", b"https://")):
        raise RefusedError(bad_request("the request target must be a path"))
    after = target.split(b"//", 1)[1]
    authority = _AUTHORITY_END.split(after, 1)[0]
    if not authority or _HOST.fullmatch(authority) is None:
        raise RefusedError(bad_request("the request target's authority is malformed"))
    head.headers[b"host"] = authority
    rest = after[len(authority) :]
    head.target = rest if rest.startswith(b"/") else b"/" + rest
    return head.target


def _check_coding(head: RequestHead, coding: bytes) -> None:
    if head.minor == 0:
        raise RefusedError(bad_request("Transfer-Encoding does not exist in HTTP/1.0"))
    if coding.lower() != b"chunked":
        raise RefusedError(Refusal(501, "transfer_encoding", "the only transfer coding taken is chunked"))
    head.chunked = True


def _obey_connection(head: RequestHead, connection: bytes) -> None:
    """RFC 9110 7.6.1: `close`, and whatever else Connection names goes no further."""
    tokens = {token.strip() for token in connection.lower().split(b",")}
    if b"close" in tokens:
        head.close = True
    named = tokens - _KNOWN_CONNECTION
    if named:
        head.kept = _without(head.kept, named)
        head.control_kept = _without(head.control_kept, named)


def _check_trace(head: RequestHead, given: bytes) -> None:
    """A trace context that is none goes no further (W3C Trace Context 4.3)."""
    match = _TRACE.match(given)
    if match is None or (
        match.end() < len(given) and (given[:2] == b"00" or given[match.end() :][:1] != b"-")
    ):
        head.kept = _without(head.kept, {b"traceparent", b"tracestate"})
    else:
        head.trace = match[1].decode()


def _without(lines: list[bytes], names: set[bytes]) -> list[bytes]:
    return [line for line in lines if line.partition(b":")[0].lower() not in names]


def special_objection(head: RequestHead, length: int) -> Refusal | None:
    """Why a `special` head is refused before its body of *length* is read; None if it is not."""
    for_engine = head.endpoint is not None
    if head.wants_websocket:
        if not for_engine or head.minor == 0 or head.method != b"GET":
            return websocket()
        if b"upgrade" not in head.headers.get(b"connection", b"").lower():
            return bad_request("an upgrade needs `Connection: Upgrade` (RFC 9110 7.8)")
    coding = head.headers.get(b"content-encoding")
    if coding is not None and for_engine and coding.lower() != b"identity":
        return encoded_body(coding.decode("latin-1"))
    if head.wants_websocket and (length or head.chunked):
        return bad_request("an upgrade to WebSocket has no body")
    return None


def engine_head(head: RequestHead, target: EngineTarget) -> bytes:
    """The head for an engine, up to our request id and the length: the client's fields that may pass, and
    ours."""
    if head.sent_to == target:
        return head.sent
    host, port, key, path = target
    auth = b"authorization: Bearer %b\r\n" % key.encode("ascii", "replace") if key else b""
    address = f"{host}:{port}".encode()
    head.sent_to, head.sent = (
        target,
        b"POST %b HTTP/1.1\r\nhost: %b\r\n%b%b" % (path, address, head.fields, auth),
    )
    return head.sent


def free_head(head: RequestHead, target: EngineTarget, *, length: int, id_line: bytes) -> bytes:
    """The head for an engine of a request by any method; a body of *length* follows."""
    host, port, key, path = target
    parts = [b"%b %b HTTP/1.1\r\nhost: %b:%d\r\n" % (head.method, path, host.encode(), port), head.fields]
    if key:
        parts.append(b"authorization: Bearer %b\r\n" % key.encode("ascii", "replace"))
    if length or head.length is not None or head.chunked:
        parts.append(b"content-length: %d\r\n" % length)
    parts += [id_line, END]
    return b"".join(parts)


def tunnel_head(head: RequestHead, path: bytes, address: bytes, *, key: str, id_line: bytes) -> bytes:
    """The head that asks an engine for a WebSocket."""
    auth = b"authorization: Bearer %b\r\n" % key.encode("ascii", "replace") if key else b""
    return b"GET %b HTTP/1.1\r\nhost: %b\r\nconnection: Upgrade\r\nupgrade: websocket\r\n%b%b%b\r\n\r\n" % (
        path,
        address,
        head.fields,
        auth,
        id_line,
    )


def control_head(head: RequestHead, *, length: int, id_line: bytes) -> bytes:
    """The head for the control app: method, target and Host are the client's own."""
    host = head.headers.get(b"host", b"localhost")
    line = b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (head.method, head.target, host)
    parts = [line, head.fields, *head.control_kept]
    parts.append(b"%b\r\n" % id_line)
    if length or head.length is not None or head.chunked:
        parts.append(b"content-length: %d\r\n" % length)
    parts.append(b"connection: close\r\n\r\n")
    return b"".join(parts)
