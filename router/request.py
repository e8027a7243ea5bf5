"""What a request's body asks for: `model`, `stream` and `keep_alive`, read once; everything else passes byte
for byte. Pure.

Nothing is built for the rest of the body: msgspec skips it in C. Where the engine must be told another name
the value is spliced; nothing is serialised again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import msgspec

from router.edits import NO_EDITS, Edits
from router.multipart import read_form, spliced
from router.ports import Bytes as Bytes
from router.ports import Refusal
from router.refused import RefusedError, bad_request

_SMALL = 65536
"""Up to here counting the key is cheaper than listing the members; above, searching costs more than
parsing."""
_SCAN_LIMIT = 64 * 1024
"""A body whose top-level keys repeat is scanned in Python up to this size; nobody sends such a body by
mistake."""
_MEMBERS_LIMIT = 4096
"""Top-level members of a body; the largest API has some forty."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of the top-level object: where its key begins, and where its value lies."""

    key: str
    start: int
    value_start: int
    value_end: int


@dataclass(slots=True)
class Asked:
    """What a body asks for. Requests for the same may share one."""

    model: str | None
    stream: bool
    entries: tuple[Entry, ...] | None = None
    """Top-level members with offsets, where they had to be found already."""
    multipart: tuple[int, int] | None = None
    """Where the model's name lies in a multipart body; None if it names none."""
    boundary: bytes = b""
    """Set for multipart bodies."""
    keep_alive: bytes | None = None
    """The value of that member of a JSON body, as JSON."""


class _Typed(msgspec.Struct, gc=False):
    model: str | msgspec.UnsetType = msgspec.UNSET
    stream: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    keep_alive: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_MODEL_KEY = b'"model"'
_BACKSLASH = ord("\\")
_TRUE = msgspec.Raw(b"true")
_NAME = 200
"""Characters of a model's name that is remembered."""

_typed = msgspec.json.Decoder(_Typed).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_KEY = re.compile(rb'[ \t\r\n]*("(?:[^"\\]|\\.)*+")[ \t\r\n]*:[ \t\r\n]*')
_AFTER = re.compile(rb"[ \t\r\n]*([,}])")
_OPEN = re.compile(rb"[ \t\r\n]*\{[ \t\r\n]*")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_STRUCTURE = re.compile(rb'["\[\]{},]')


@lru_cache(maxsize=1024)
def _asked(model: str | None, stream: bool) -> Asked:
    return Asked(model, stream)


def read_json(body: Bytes) -> Asked:
    """`model`, `stream` and `keep_alive` of a JSON body.

    Raises `RefusedError` (400) if it is no JSON object, if `model` is no string or stands there twice
    (escaped spellings of the key count: two parsers would not agree on which one is meant).
    """
    if type(body) is bytes and len(body) <= _SMALL and _names_model_once(body):
        # No second "model" and no escape that could spell one: the typed skip sees all there is.
        try:
            typed = _typed(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _unreadable(body, error) from None
        model = None if typed.model is msgspec.UNSET else typed.model
        stream = typed.stream == _TRUE
        if typed.keep_alive is not msgspec.UNSET:
            return Asked(model, stream, keep_alive=bytes(typed.keep_alive))
        return _asked(model, stream) if model is None or len(model) <= _NAME else Asked(model, stream)
    entries = find_entries(body)
    model_value, stream, keep_alive = None, False, None
    for entry in entries:
        if entry.key == "model":
            if model_value is not None:
                raise RefusedError(
                    bad_request("the body has more than one `model`", code="duplicate_model", param="model")
                )
            model_value = bytes(body[entry.value_start : entry.value_end])
        elif entry.key == "stream":
            stream = bytes(body[entry.value_start : entry.value_end]) == b"true"
        elif entry.key == "keep_alive":
            keep_alive = bytes(body[entry.value_start : entry.value_end])
    named = None if model_value is None else _string(model_value)
    return Asked(named, stream, entries, keep_alive=keep_alive)


def read_multipart(body: Bytes, content_type: bytes) -> Asked:
    """The same of a form. Raises `RefusedError`."""
    form = read_form(body, content_type)
    return Asked(form.model, form.stream, multipart=form.model_at, boundary=form.boundary)


def _names_model_once(body: bytes) -> bool:
    # By its number a byte is found in half the time.
    if _BACKSLASH in body and b"\\u00" in body:
        return False  # some key may be spelled with escapes
    # Backwards: CPython searches twice as fast in that direction.
    last = body.rfind(_MODEL_KEY)
    return last < 0 or body.rfind(_MODEL_KEY, 0, last + len(_MODEL_KEY) - 1) < 0


def _string(value: bytes) -> str:
    try:
        return msgspec.json.decode(value, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RefusedError(_not_a_string()) from None


def _not_a_string() -> Refusal:
    return bad_request("`model` must be a string", code="invalid_model", param="model")


def _unreadable(body: Bytes, error: Exception) -> RefusedError:
    if len(body) == 0:
        return RefusedError(bad_request("the body is empty; send a JSON object", code="invalid_json"))
    if isinstance(error, msgspec.ValidationError):
        if _OPEN.match(body) is None:
            return RefusedError(bad_request("the body must be a JSON object", code="invalid_json"))
        return RefusedError(_not_a_string())
    return RefusedError(bad_request(f"the body is not valid JSON: {error}", code="invalid_json"))


def find_entries(body: Bytes) -> tuple[Entry, ...]:
    """The top-level members of the JSON object *body*, with offsets. Raises `RefusedError`.

    msgspec gives each distinct key once, with its last value's bytes; walking along them finds the offsets
    without parsing the values again. Each value must stand where it is expected, byte for byte: no JSON value
    but a number begins another one, so the walk can neither stop short nor be led into a value that was made
    to look like members. Where it does not fit, a key stands there twice.
    """
    try:
        members = _members(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(body, error) from None
    if len(members) > _MEMBERS_LIMIT:
        raise RefusedError(
            bad_request(f"the body has more than {_MEMBERS_LIMIT} members", code="invalid_json")
        )
    opened = _OPEN.match(body)
    assert opened is not None  # msgspec has read an object
    pos = opened.end()
    entries = []
    # Views have no `startswith`; they always begin with their buffer.
    data = body if isinstance(body, bytes) else cast("bytearray", body.obj)
    for key, raw in members.items():
        match = _KEY.match(body, pos)
        if match is None or json.loads(match[1]) != key or not data.startswith(raw, match.end()):
            return _scan(body, opened.end())
        end = match.end() + len(memoryview(raw))
        after = _AFTER.match(body, end)
        if after is None:
            return _scan(body, opened.end())
        entries.append(Entry(key, match.start(1), match.end(), end))
        pos = after.end()
    if entries and body[pos - 1 : pos] != b"}":
        return _scan(body, opened.end())
    return tuple(entries)


def _scan(body: Bytes, pos: int) -> tuple[Entry, ...]:
    """The same for an object with repeated keys: slower, and bounded. *body* is known to be valid JSON."""
    if len(body) > _SCAN_LIMIT:
        raise RefusedError(bad_request("the body repeats a top-level key", code="duplicate_key"))
    entries = []
    while True:
        match = _KEY.match(body, pos)
        assert match is not None  # valid JSON: a member follows
        end = _value_end(body, match.end())
        entries.append(
            Entry(json.loads(match[1]), match.start(1), match.end(), _trimmed(body, match.end(), end))
        )
        if body[end : end + 1] == b"}":
            return tuple(entries)
        pos = end + 1


def _value_end(body: Bytes, pos: int) -> int:
    """Offset of the comma or brace after the value that begins at *pos*."""
    depth = 0
    while True:
        match = _STRUCTURE.search(body, pos)
        assert match is not None  # valid JSON: the object is closed
        mark = match[0]
        if mark == b'"':
            string = _STRING.match(body, match.start())
            assert string is not None  # valid JSON: the string is closed
            pos = string.end()
            continue
        if depth == 0 and mark in (b",", b"}"):
            return match.start()
        if mark in (b"{", b"["):
            depth += 1
        elif mark in (b"}", b"]"):
            depth -= 1
        pos = match.end()


def _trimmed(body: Bytes, start: int, end: int) -> int:
    while end > start and body[end - 1] in b" \t\r\n":
        end -= 1
    return end


def rewritten(
    body: Bytes, asked: Asked, *, model: str | None, strip: tuple[str, ...] = (), edits: Edits = NO_EDITS
) -> list[Bytes]:
    """*body* as pieces, with `model` set to *model* (None: as it is) and, if it is JSON, the members named in
    *strip* left out and *edits* made."""
    if asked.boundary:
        return [body] if model is None else spliced(body, asked.boundary, asked.multipart, model)
    gone = edits.strip.union(strip)
    if gone and asked.entries is None and not _may_have(body, gone):
        gone = frozenset()
    if model is None and not gone and not edits.put and not edits.default:
        return [body]
    entries = asked.entries if asked.entries is not None else find_entries(body)
    changes: list[tuple[int, int, bytes]] = []
    kept = [entry for entry in entries if entry.key not in gone]
    if len(kept) < len(entries):
        changes += _removals(entries, gone)
    new = list(edits.put)
    if edits.default:
        given = {entry.key for entry in kept}
        new += [member for key, member in edits.default if key not in given]
    if model is not None:
        value = json.dumps(model).encode()
        old = next((entry for entry in entries if entry.key == "model"), None)
        if old is not None:
            changes.append((old.value_start, old.value_end, value))
        else:
            new.insert(0, b'"model":' + value)
    if new:
        at = _after_brace(body)
        changes.append((at, at, b",".join(new) + (b"," if kept else b"")))
    pieces: list[Bytes] = []
    pos = 0
    for start, end, text in sorted(changes):
        pieces.append(body[pos:start])
        if text:
            pieces.append(text)
        pos = end
    pieces.append(body[pos:])
    return [piece for piece in pieces if len(piece)]


def _after_brace(body: Bytes) -> int:
    """Offset behind the brace that opens the object."""
    opened = _OPEN.match(body)
    assert opened is not None  # read_json has seen an object
    return bytes(body[: opened.end()]).index(b"{") + 1


def _may_have(body: Bytes, names: frozenset[str]) -> bool:
    """Whether one of *names* could be a key: a cheap no for small bodies, a yes when unsure."""
    if not isinstance(body, bytes):
        return True
    return b"\\u00" in body or any(b'"%b"' % name.encode() in body for name in names)


def _removals(entries: tuple[Entry, ...], strip: frozenset[str]) -> list[tuple[int, int, bytes]]:
    """Edits that take members out with the comma that belongs to them."""
    edits = []
    last_kept_end: int | None = None
    for i, entry in enumerate(entries):
        if entry.key not in strip:
            last_kept_end = entry.value_end
            continue
        if i + 1 < len(entries):
            edits.append((entry.start, entries[i + 1].start, b""))
        elif last_kept_end is None:
            edits.append((entry.start, entry.value_end, b""))
        else:
            # The last member: the comma before it goes, and whatever was taken out between.
            edits = [edit for edit in edits if edit[0] < last_kept_end]
            edits.append((last_kept_end, entry.value_end, b""))
    return edits
