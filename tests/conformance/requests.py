"""Requests as bytes, each with the rule it stands for; of two readings, the strict one."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.wire import CHAT


@dataclass(frozen=True)
class Case:
    """What a client sends, and what must come of it."""

    rule: str
    """Section of RFC 9110, RFC 9112 or RFC 8259, or a row of docs/explanation/front.md."""
    raw: bytes
    status: int = 200
    code: str = ""
    """Code of the refusal; empty: any."""


HOST = b"Host: modelyard\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(CHAT)
TE = b"Transfer-Encoding: chunked\r\n"
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(CHAT), CHAT)
LINE = b"POST /v1/chat/completions HTTP/1.1"


def req(*fields: bytes, line: bytes = LINE, body: bytes = CHAT, host: bytes = HOST) -> bytes:
    """A request out of its parts; without further *fields* its body has a length."""
    return line + b"\r\n" + host + b"".join(fields or (LENGTH,)) + b"\r\n" + body


def field(line: bytes) -> bytes:
    """A request that is right but for one more field line."""
    return req(line + b"\r\n", LENGTH)


def te(line: bytes) -> bytes:
    """A chunked request whose coding is named by *line*."""
    return req(line + b"\r\n", body=CHUNKED)


def length(value: bytes) -> bytes:
    """A request that says its length as *value*."""
    return req(b"Content-Length:" + value + b"\r\n")


def chunks(body: bytes) -> bytes:
    """A chunked request with *body* as its framing."""
    return req(TE, body=body)


_SIZE = b"%x" % len(CHAT)

REFUSED = {
    # -- the request line
    "HTTP/0.9": Case("RFC 9112 2.3", b"GET /\r\n\r\n", 505),
    "HTTP/2.0": Case("RFC 9110 6.2", req(line=b"POST / HTTP/2.0"), 505),
    "HTTP/1.2": Case("RFC 9110 2.5", req(line=b"POST / HTTP/1.2"), 400),
    "HTTP/1": Case("RFC 9112 2.3", req(line=b"POST / HTTP/1"), 400),
    "HTTP/01.1": Case("RFC 9112 2.3", req(line=b"POST / HTTP/01.1"), 400),
    "http in lower case": Case("RFC 9112 2.3", req(line=b"POST / http/1.1"), 400),
    "another protocol": Case("RFC 9112 2.3", req(line=b"POST / RTSP/1.0"), 400),
    "the preface of HTTP/2": Case("RFC 9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "an unknown method": Case("RFC 9110 9.1", req(line=b"FETCH / HTTP/1.1"), 400),
    "a method in lower case": Case("RFC 9110 9.1", req(line=b"post / HTTP/1.1"), 400),
    "a method with a control character": Case("RFC 9110 5.6.2", req(line=b"PO\x01ST / HTTP/1.1"), 400),
    "a tunnel": Case("RFC 9110 9.3.6", b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
    "TRACE": Case("RFC 9110 9.3.8", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "two spaces before the target": Case("RFC 9112 3", req(line=b"POST  / HTTP/1.1"), 400),
    "two spaces after the target": Case("RFC 9112 3", req(line=b"POST /  HTTP/1.1"), 400),
    "a tab after the method": Case("RFC 9112 3", req(line=b"POST\t/ HTTP/1.1"), 400),
    "a space after the version": Case("RFC 9112 3", req(line=b"POST / HTTP/1.1 "), 400),
    "a space in the target": Case("RFC 9112 3.2", req(line=b"POST /a b HTTP/1.1"), 400),
    "a space before the method": Case("RFC 9112 2.2", b" " + req(), 400),
    "no target": Case("RFC 9112 3", req(line=b"POST HTTP/1.1"), 400),
    "a fragment": Case("RFC 9112 3.2", req(line=LINE.replace(b" HTTP", b"#x HTTP")), 400),
    "a relative target": Case("RFC 9112 3.2.1", req(line=b"POST v1/chat HTTP/1.1"), 400),
    "a control character in the target": Case("RFC 3986 2", req(line=b"POST /\x01 HTTP/1.1"), 400),
    "DEL in the target": Case("RFC 3986 2", req(line=b"POST /\x7f HTTP/1.1"), 400),
    "a byte beyond ASCII in the target": Case("RFC 3986 2", req(line=b"POST /\xc3\xa9 HTTP/1.1"), 400),
    "an authority as the target of POST": Case("RFC 9112 3.2.3", req(line=b"POST a:80 HTTP/1.1"), 400),
    "an absolute target without authority": Case(
        "RFC 9110 4.2.1", req(line=b"POST http:///v1 HTTP/1.1"), 400
    ),
    "an absolute target with user info": Case(
        "RFC 9110 4.2.4", req(line=b"POST http://a:b@h/v1/chat/completions HTTP/1.1"), 400
    ),
    "an absolute target of another scheme": Case("RFC 9112 3.2.2", req(line=b"POST ftp://h/ HTTP/1.1"), 400),
    "an asterisk for anything but OPTIONS": Case("RFC 9112 3.2.4", req(line=b"POST * HTTP/1.1"), 400),
    "a TLS hello": Case("RFC 9112 3", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "many empty lines before the request": Case("RFC 9112 2.2", b"\r\n" * 40 + req(), 400),
    "bare line feeds before the request": Case("RFC 9112 2.2", b"\n\n" + req(), 400),
    # -- Host
    "no Host": Case("RFC 9112 3.2", req(host=b""), 400),
    "two Hosts": Case("RFC 9112 3.2", req(b"Host: other\r\n", LENGTH), 400),
    "two Hosts alike": Case("RFC 9112 3.2", req(HOST, LENGTH), 400),
    "a Host with a space": Case("RFC 9112 3.2", req(host=b"Host: a b\r\n"), 400),
    "a Host with a path": Case("RFC 9112 3.2", req(host=b"Host: a/b\r\n"), 400),
    "a Host with user info": Case("RFC 9110 4.2.4", req(host=b"Host: u@a\r\n"), 400),
    "a Host that is a list": Case("RFC 9112 3.2", req(host=b"Host: a, b\r\n"), 400),
    # -- fields
    "a space before the colon": Case("RFC 9112 5.1", field(b"X-A : b"), 400),
    "a tab before the colon": Case("RFC 9112 5.1", field(b"X-A\t: b"), 400),
    "no colon": Case("RFC 9112 5", field(b"X-A"), 400),
    "no field name": Case("RFC 9110 5.1", field(b": b"), 400),
    "a space in the name": Case("RFC 9110 5.1", field(b"X A: b"), 400),
    "parentheses in the name": Case("RFC 9110 5.6.2", field(b"X(A): b"), 400),
    "a byte beyond ASCII in the name": Case("RFC 9110 5.6.2", field(b"X-\xe9: b"), 400),
    "a folded field": Case("RFC 9112 5.2", field(b"X-A: b\r\n c"), 400),
    "a field folded by a tab": Case("RFC 9112 5.2", field(b"X-A: b\r\n\tc"), 400),
    "white space before the first field": Case("RFC 9112 2.2", req(host=b" Host: a\r\n"), 400),
    "a bare line feed ends a field": Case("RFC 9112 2.2", field(b"X-A: b\nX-C: d"), 400),
    "a bare line feed ends the head": Case(
        "RFC 9112 2.2", LINE + b"\n" + HOST + LENGTH + b"\r\n" + CHAT, 400
    ),
    "a bare carriage return in a field": Case("RFC 9112 2.2", field(b"X-A: b\rX-C: d"), 400),
    "a zero byte in a field": Case("RFC 9110 5.5", field(b"X-A: b\0"), 400),
    "a control character in a field": Case("RFC 9110 5.5", field(b"X-A: b\x01"), 400),
    "DEL in a field": Case("RFC 9110 5.5", field(b"X-A: b\x7f"), 400),
    "two Authorizations": Case("RFC 9110 5.3", field(b"Authorization: a\r\nAuthorization: b"), 400),
    "two Content-Types": Case("RFC 9110 8.3", field(b"Content-Type: a/b\r\nContent-Type: c/d"), 400),
    "another expectation": Case("RFC 9110 10.1.1", field(b"Expect: 200-maybe"), 417),
    "two expectations": Case("RFC 9110 10.1.1", field(b"Expect: 100-continue, x"), 417),
    # -- Content-Length
    "two lengths": Case("RFC 9112 6.3", req(LENGTH, b"Content-Length: 3\r\n"), 400),
    "two lengths alike": Case("RFC 9112 6.3", req(LENGTH, LENGTH), 400),
    "a list of lengths": Case("RFC 9112 6.3", length(b" 57, 57"), 400),
    "a signed length": Case("RFC 9110 8.6", length(b" +57"), 400),
    "a negative length": Case("RFC 9110 8.6", length(b" -1"), 400),
    "a hexadecimal length": Case("RFC 9110 8.6", length(b" 0x39"), 400),
    "a length with a comma": Case("RFC 9110 8.6", length(b" 57,"), 400),
    "a length with a point": Case("RFC 9110 8.6", length(b" 57.0"), 400),
    "a length with an underscore": Case("RFC 9110 8.6", length(b" 5_7"), 400),
    "a length in two words": Case("RFC 9110 8.6", length(b" 5 7"), 400),
    "an empty length": Case("RFC 9110 8.6", length(b""), 400),
    "a length beyond 64 bits": Case("RFC 9110 8.6", length(b" 18446744073709551617"), 400),
    "a length in Arabic digits": Case("RFC 9110 8.6", length(b" \xd9\xa5\xd9\xa7"), 400),
    "a length above the limit": Case("front: limits", length(b" 999999999999"), 413, "body_too_large"),
    # -- Transfer-Encoding
    "length, then chunked": Case("RFC 9112 6.3", req(LENGTH, TE, body=CHUNKED), 400),
    "chunked, then length": Case("RFC 9112 6.3", req(TE, LENGTH, body=CHUNKED), 400),
    "length zero and chunked": Case("RFC 9112 6.3", req(b"Content-Length: 0\r\n", TE, body=CHUNKED), 400),
    "chunked twice in two fields": Case("RFC 9112 6.1", req(TE, TE, body=CHUNKED), 400),
    "chunked twice in one field": Case("RFC 9112 6.1", te(b"Transfer-Encoding: chunked, chunked"), 400),
    "gzip, then chunked": Case("RFC 9112 6.1", te(b"Transfer-Encoding: gzip, chunked"), 501),
    "chunked, then identity": Case("RFC 9112 6.1", te(b"Transfer-Encoding: chunked, identity"), 400),
    "identity": Case("RFC 9112 6.1", te(b"Transfer-Encoding: identity"), 400),
    "xchunked": Case("RFC 9112 6.1", te(b"Transfer-Encoding: xchunked"), 400),
    "chunked in quotes": Case("RFC 9112 7", te(b'Transfer-Encoding: "chunked"'), 400),
    "chunked with a parameter": Case("RFC 9112 7", te(b"Transfer-Encoding: chunked;q=1"), 400),
    "chunked behind a comma": Case("RFC 9110 5.6.1", te(b"Transfer-Encoding: ,chunked"), 501),
    "chunked behind a vertical tab": Case("RFC 9112 6.1", te(b"Transfer-Encoding: \x0bchunked"), 400),
    "an empty coding": Case("RFC 9112 6.1", te(b"Transfer-Encoding:"), 400),
    "a folded coding": Case("RFC 9112 5.2", te(b"Transfer-Encoding:\r\n chunked"), 400),
    "a space before the coding's colon": Case("RFC 9112 5.1", te(b"Transfer-Encoding : chunked"), 400),
    "chunked on HTTP/1.0": Case("RFC 9112 6.1", req(TE, line=b"POST / HTTP/1.0", body=CHUNKED), 400),
    # -- chunks
    "a size with 0x": Case("RFC 9112 7.1", chunks(b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
    "a size with a sign": Case("RFC 9112 7.1", chunks(b"+5\r\nhello\r\n0\r\n\r\n"), 400),
    "a negative size": Case("RFC 9112 7.1", chunks(b"-5\r\nhello\r\n0\r\n\r\n"), 400),
    "a size with an underscore": Case("RFC 9112 7.1", chunks(b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"), 400),
    "no size": Case("RFC 9112 7.1", chunks(b"\r\nhello\r\n0\r\n\r\n"), 400),
    "a size of letters": Case("RFC 9112 7.1", chunks(b"xyz\r\nhello\r\n0\r\n\r\n"), 400),
    "a size beyond 64 bits": Case("RFC 9112 7.1", chunks(b"f" * 17 + b"\r\nhello\r\n0\r\n\r\n"), 400),
    "a space before the size": Case("RFC 9112 7.1", chunks(b" 5\r\nhello\r\n0\r\n\r\n"), 400),
    "a space after the size": Case("RFC 9112 7.1", chunks(b"5 \r\nhello\r\n0\r\n\r\n"), 400),
    "a chunk longer than its size": Case("RFC 9112 7.1", chunks(b"2\r\nhello\r\n0\r\n\r\n"), 400),
    "a chunk without its CRLF": Case("RFC 9112 7.1", chunks(b"5\r\nhello0\r\n\r\n"), 400),
    "a bare line feed after the size": Case("RFC 9112 2.2", chunks(b"5\nhello\r\n0\r\n\r\n"), 400),
    "a bare line feed after the chunk": Case("RFC 9112 2.2", chunks(b"5\r\nhello\n0\r\n\r\n"), 400),
    "a bare carriage return after the size": Case("RFC 9112 2.2", chunks(b"5\rhello\r\n0\r\n\r\n"), 400),
    "a bare line feed in an extension": Case("RFC 9112 7.1.1", chunks(b"5;a\nb\r\nhello\r\n0\r\n\r\n"), 400),
    "a bare carriage return in an extension": Case(
        "RFC 9112 7.1.1", chunks(b"5;a\rb\r\nhello\r\n0\r\n\r\n"), 400
    ),
    "a control character in an extension": Case(
        "RFC 9112 7.1.1", chunks(b"5;a=\0\r\nhello\r\n0\r\n\r\n"), 400
    ),
    "an endless extension": Case("RFC 9112 7.1.1", chunks(b"5;" + b"a" * 3000), 400),
    "an endless size": Case("RFC 9112 7.1", chunks(b"0" * 3000), 400),
    "a bare line feed in the trailers": Case("RFC 9112 7.1.2", chunks(b"0\r\nA: b\nC: d\r\n\r\n"), 400),
    "a trailer that is no field": Case("RFC 9112 7.1.2", chunks(b"0\r\nGET / HTTP/1.1\r\n\r\n"), 400),
    "a folded trailer": Case("RFC 9112 5.2", chunks(b"0\r\nA: b\r\n c\r\n\r\n"), 400),
    "endless trailers": Case("RFC 9112 7.1.2", chunks(b"0\r\n" + b"A: b\r\n" * 3000), 400),
    # -- what we do not do
    "an upgrade to WebSocket where there is none": Case(
        "RFC 9110 7.8",
        req(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", LENGTH),
        501,
        "websocket_unsupported",
    ),
    "a gzipped body": Case("RFC 9110 8.4", field(b"Content-Encoding: gzip"), 415, "unsupported_encoding"),
    "a body compressed by zstd": Case("RFC 9110 15.5.16", field(b"Content-Encoding: zstd"), 415),
    "a body compressed twice": Case("RFC 9110 8.4", field(b"Content-Encoding: gzip, identity"), 415),
    "two Content-Encodings": Case(
        "RFC 9110 8.4", field(b"Content-Encoding: identity\r\nContent-Encoding: gzip"), 415
    ),
    # -- bodies
    "an empty body": Case("RFC 8259 2", req(b"Content-Length: 0\r\n", body=b""), 400, "invalid_json"),
    "no length at all": Case("RFC 9112 6.3", req(b"X-A: b\r\n", body=b""), 400, "invalid_json"),
    "a body that is no JSON": Case(
        "RFC 8259 2", req(b"Content-Length: 3\r\n", body=b"{a}"), 400, "invalid_json"
    ),
    "a body in UTF-16": Case(
        "RFC 8259 8.1", req(b"Content-Length: 8\r\n", body='{"a"'.encode("utf-16-le")), 400, "invalid_json"
    ),
    "a list": Case("front: requests", req(b"Content-Length: 3\r\n", body=b"[1]"), 400, "invalid_json"),
    "two models": Case(
        "RFC 8259 4",
        req(b"Content-Length: 25\r\n", body=b'{"model":"m","model":"n"}'),
        400,
        "duplicate_model",
    ),
    "two models, one escaped": Case(
        "RFC 8259 4",
        req(b"Content-Length: 30\r\n", body=b'{"model":"m","mod\\u0065l":"n"}'),
        400,
        "duplicate_model",
    ),
    "a model that is a number": Case(
        "front: requests", req(b"Content-Length: 11\r\n", body=b'{"model":1}'), 400, "invalid_model"
    ),
    "an unknown model": Case(
        "front: names", req(b"Content-Length: 15\r\n", body=b'{"model":"who"}'), 404, "model_not_found"
    ),
}

TAKEN = {
    "plain": Case("RFC 9112 6.2", req()),
    "chunked": Case("RFC 9112 7.1", chunks(CHUNKED)),
    "chunked in many chunks": Case(
        "RFC 9112 7.1", chunks(b"".join(b"1\r\n%c\r\n" % c for c in CHAT) + b"0\r\n\r\n")
    ),
    "a coding in upper case": Case("RFC 9112 7", te(b"Transfer-Encoding: CHUNKED")),
    "white space around the coding": Case("RFC 9110 5.5", te(b"Transfer-Encoding: \t chunked ")),
    "a size in upper case": Case("RFC 9112 7.1", chunks(CHUNKED.replace(_SIZE, _SIZE.upper(), 1))),
    "a size with leading zeros": Case("RFC 9112 7.1", chunks(b"0000" + CHUNKED)),
    "a last chunk of many zeros": Case("RFC 9112 7.1", chunks(CHUNKED[:-5] + b"000\r\n\r\n")),
    "an extension": Case("RFC 9112 7.1.1", chunks(CHUNKED.replace(_SIZE, _SIZE + b";a=b", 1))),
    "an extension with white space": Case(
        "RFC 9112 7.1.1", chunks(CHUNKED.replace(_SIZE, _SIZE + b" ; a=b", 1))
    ),
    "an extension in quotes": Case("RFC 9112 7.1.1", chunks(CHUNKED.replace(_SIZE, _SIZE + b';a="b c"', 1))),
    "an extension of the last chunk": Case("RFC 9112 7.1.1", chunks(CHUNKED[:-5] + b"0;a\r\n\r\n")),
    "trailers": Case("RFC 9112 7.1.2", chunks(CHUNKED[:-2] + b"X-T: 1\r\nAuthorization: Bearer x\r\n\r\n")),
    "a length with leading zeros": Case("RFC 9110 8.6", length(b" 000%d" % len(CHAT))),
    "a length with white space around it": Case("RFC 9110 5.5", length(b"\t %d \t" % len(CHAT))),
    "a length without white space": Case("RFC 9110 5.5", length(b"%d" % len(CHAT))),
    "an empty line before": Case("RFC 9112 2.2", b"\r\n" + req()),
    "an absolute target": Case("RFC 9112 3.2.2", req(line=b"POST http://h:1/v1/chat/completions HTTP/1.1")),
    "an absolute target in upper case": Case(
        "RFC 9110 4.2.3", req(line=b"POST HTTP://H/v1/chat/completions HTTP/1.1")
    ),
    "an empty Host": Case("RFC 9112 3.2", req(host=b"Host:\r\n")),
    "an IPv6 Host": Case("RFC 3986 3.2.2", req(host=b"Host: [::1]:80\r\n")),
    "HTTP/1.0": Case("RFC 9110 2.5", req(line=b"POST /v1/chat/completions HTTP/1.0")),
    "HTTP/1.0 without Host": Case("RFC 9112 3.2", req(line=b"POST /v1/chat/completions HTTP/1.0", host=b"")),
    "names in any case": Case("RFC 9110 5.1", req(b"CONTENT-LENGTH: %d\r\n" % len(CHAT))),
    "an empty value": Case("RFC 9110 5.5", field(b"X-A:")),
    "bytes beyond ASCII in a value": Case("RFC 9110 5.5", field(b"X-A: \xc3\xa9\xff")),
    "an unknown connection option": Case(
        "RFC 9110 7.6.1", field(b"Connection: keep-alive, x-secret\r\nX-Secret: 1")
    ),
    "an offer of h2c": Case(
        "RFC 9110 7.8", field(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA")
    ),
    "an upgrade without Connection": Case("RFC 9110 7.8", field(b"Upgrade: TLS/1.0")),
    "identity as the encoding": Case("RFC 9110 8.4.1", field(b"Content-Encoding: identity")),
    "an expectation on HTTP/1.0": Case(
        "RFC 9110 10.1.1",
        req(b"Expect: 100-continue\r\n", LENGTH, line=b"POST /v1/chat/completions HTTP/1.0"),
    ),
    "an expectation with its body": Case("RFC 9110 10.1.1", field(b"Expect: 100-continue")),
    "an expectation in upper case": Case("RFC 9110 10.1.1", field(b"Expect: 100-CONTINUE")),
    "without the version in the path": Case("front: endpoints", req(line=b"POST /chat/completions HTTP/1.1")),
    "a query": Case("RFC 9112 3.2.1", req(line=b"POST /v1/chat/completions?a=b?c HTTP/1.1")),
}
