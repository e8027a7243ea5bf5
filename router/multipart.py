"""Forms (multipart/form-data, RFC 7578): which model they name, and how they are told another. Pure.

Engines read forms leniently, and not all alike; whatever two of them could read in two ways is refused here,
so that the model that was looked up is the one that the engine sees.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from router.ports import Bytes
from router.refused import RefusedError, bad_request

_PARTS_LIMIT = 256
_PART_HEAD_LIMIT = 8192
"""Bytes of one part's fields."""
_NAME_LIMIT = 4096
"""Bytes of a model's name; the longest id on a hub has some hundred."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FIELD = re.compile(rb"(%b):([\t\x20-\x7e\x80-\xff]*)" % _TOKEN)
_PARAMETER = re.compile(rb'[ \t]*;[ \t]*(%b)=(?:"((?:[^"\\\r\n]|\\[^\r\n])*)"|(%b))' % (_TOKEN, _TOKEN))
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
"""RFC 2046 5.1.1."""


@dataclass(slots=True)
class Form:
    """What a form says of itself."""

    boundary: bytes
    model: str | None = None
    model_at: tuple[int, int] | None = None
    """Where the model's name lies in the body."""
    stream: bool = False


def read_form(body: Bytes, content_type: bytes) -> Form:
    """The `model` and `stream` fields of the form in *body*, wherever they stand. Raises `RefusedError`."""
    form = Form(_boundary(content_type))
    # Views have no `find`; they always begin with their buffer, and what lies behind them is not theirs.
    data = body if isinstance(body, bytes) else cast("bytearray", body.obj)
    size = len(body)
    delimiter = b"\r\n--" + form.boundary
    pos = len(delimiter) - 2
    if body[:pos] != delimiter[2:]:
        raise _malformed("does not begin with its boundary")
    for _ in range(_PARTS_LIMIT):
        after = body[pos : pos + 2]
        if after == b"--":
            return form
        if after != b"\r\n":
            raise _malformed("has something behind a boundary")
        head_end = data.find(b"\r\n\r\n", pos, min(pos + _PART_HEAD_LIMIT, size))
        if head_end < 0:
            raise _malformed("has a part whose fields have no end")
        # RFC 2046 lets an empty part's boundary share the empty line above it; engines read that as content.
        end = data.find(delimiter, head_end + 4, size)
        if end < 0:
            raise _malformed("has a part without an end")
        name = _name_of(data[pos + 2 : head_end])
        _note(form, name, data, head_end + 4, end)
        pos = end + len(delimiter)
    raise _malformed(f"has more than {_PARTS_LIMIT} parts")


def spliced(body: Bytes, form_boundary: bytes, model_at: tuple[int, int] | None, model: str) -> list[Bytes]:
    """*body* as pieces, with *model* as the value that lies at *model_at*, or in a part of its own."""
    value = model.encode()
    if model_at is not None:
        start, end = model_at
        return [body[:start], value, body[end:]]
    part = b'--%b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n' % (form_boundary, value)
    return [part, body]


def _malformed(what: str) -> RefusedError:
    return RefusedError(bad_request(f"the form {what}", code="invalid_multipart"))


def _boundary(content_type: bytes) -> bytes:
    parameters = _parameters(content_type, b"multipart/form-data") or []
    found = [value for name, value in parameters if name == b"boundary"]
    if len(found) != 1 or _BOUNDARY.fullmatch(found[0]) is None:
        raise RefusedError(bad_request("Content-Type must be multipart/form-data with one boundary"))
    if any(name == b"charset" and value.lower() != b"utf-8" for name, value in parameters):
        raise RefusedError(bad_request("a form's charset must be utf-8"))
    return found[0]


def _parameters(value: bytes, kind: bytes) -> list[tuple[bytes, bytes]] | None:
    """Names (lower case) and values behind *kind*; None if it is another kind, or malformed."""
    if value[: len(kind)].lower() != kind:
        return None
    found, pos = [], len(kind)
    while pos < len(value):
        match = _PARAMETER.match(value, pos)
        if match is None:
            return None
        found.append((match[1].lower(), match[3] if match[2] is None else match[2]))
        pos = match.end()
    return found


def _name_of(head: bytes | bytearray) -> bytes:
    """The field that a part with *head* is."""
    dispositions = []
    for line in bytes(head).split(b"\r\n"):
        match = _FIELD.fullmatch(line)
        if match is None:
            raise _malformed("has a part with a malformed field")
        if match[1].lower() == b"content-disposition":
            dispositions.append(match[2].strip(b" \t"))
    parameters = _parameters(dispositions[0], b"form-data") if len(dispositions) == 1 else None
    names = [value for name, value in parameters or () if name.startswith(b"name")]
    if parameters is None or len(names) != 1 or (b"name", names[0]) not in parameters or b"\\" in names[0]:
        raise _malformed("has a part that does not say in one way which field it is")
    return names[0]


def _note(form: Form, name: bytes, data: bytes | bytearray, start: int, end: int) -> None:
    if name == b"stream":
        form.stream = end - start < 16 and data[start:end].strip().lower() in (b"true", b"1")
    if name != b"model":
        return
    if form.model_at is not None:
        message = "the body has more than one `model`"
        raise RefusedError(bad_request(message, code="duplicate_model", param="model"))
    try:
        form.model = bytes(data[start : min(end, start + _NAME_LIMIT + 1)]).decode()
    except UnicodeDecodeError:
        form.model = None
    if form.model is None or end - start > _NAME_LIMIT:
        message = f"`model` must be UTF-8 text of at most {_NAME_LIMIT} bytes"
        raise RefusedError(bad_request(message, code="invalid_model", param="model"))
    form.model_at = (start, end)
