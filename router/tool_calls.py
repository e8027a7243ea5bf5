"""Tool calls out of a model's text into OpenAI's `tool_calls`, streamed and not. Pure.

Only for answers to requests with tools, and only where the engine is known to leave calls in the text
(`Wire.calls`); gpt-oss's channels are taken apart in every answer, for every answer has them. Text before a
call flows on; a call is sent as two deltas, its name and its arguments; an answer that ends with calls ends
with the finish reason `tool_calls`. What is not understood passes as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from secrets import token_hex
from typing import Any, Final

import msgspec

from router.bare_calls import BareCalls
from router.call_text import Call, CallFormat, CallText, Piece, Shapes, Thought
from router.echo import ModelEcho
from router.harmony import Harmony
from router.ports import Bytes

MOST_EVENT: Final = 1024 * 1024
"""Bytes of one event; one without an end passes, and everything after it, as it is."""
MOST_CHOICES: Final = 128
"""As OpenAI's own limit of `n`."""

Json = dict[str, Any]

_BOUNDARY: Final = re.compile(rb"\r?\n\r?\n")
_encode = msgspec.json.encode
_decode = msgspec.json.decode
_WRONG: Final = (msgspec.DecodeError, UnicodeDecodeError)


def new_call_id() -> str:
    """`call_` and what makes it unique."""
    return f"call_{token_hex(12)}"


Reader = CallText | BareCalls | Harmony


def reader_of(call_format: CallFormat, shapes: Shapes) -> Reader:
    """What finds calls of that format in the text of one answer."""
    if call_format == "json":
        return BareCalls(shapes)
    return Harmony() if call_format == "harmony" else CallText(call_format, shapes)


class ToolCallFilter:
    """Satisfies `router.echo.AnswerFilter` for one answer."""

    whole = True
    __slots__ = ("_echo", "_format", "_held", "_last", "_new_id", "_shapes", "_texts", "_through")

    def __init__(
        self,
        call_format: CallFormat,
        shapes: Shapes,
        *,
        echo: ModelEcho | None = None,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        """*shapes* are the request's tools; *echo* puts the model's name into what comes out."""
        self._format = call_format
        self._shapes = shapes
        self._echo = echo
        self._new_id = new_id
        self._held = b""
        self._texts: dict[int, Reader] = {}
        self._last: Json = {}
        """What every event of this answer says, for one that we add."""
        self._through = False

    # -- streamed ----------------------------------------------------------------------------------

    def feed(self, data: bytes) -> bytes:
        """The events in *data*, with calls in their place; an event that is not complete waits."""
        data = self._held + data
        self._held = b""
        out: list[bytes] = []
        start = 0
        while not self._through and (match := _BOUNDARY.search(data, start)) is not None:
            out.append(self._event(data[start : match.end()]))
            start = match.end()
        rest = data[start:]
        if self._through or len(rest) > MOST_EVENT:
            self._through = True
            out.append(rest)
        else:
            self._held = rest
        return self._echoed(b"".join(out))

    def flush(self) -> bytes:
        """What was kept, at the end."""
        held, self._held = self._held, b""
        out = self._echoed(self._ended() + held)
        return out if self._echo is None else out + self._echo.flush()

    def _event(self, event: bytes) -> bytes:
        """What becomes of one event."""
        if not event.startswith(b"data:"):
            return event
        payload = event[5:].strip()
        if payload == b"[DONE]":
            return self._ended() + event
        try:
            chunk = _decode(payload)
        except _WRONG:
            return event
        choices = chunk.get("choices") if isinstance(chunk, dict) else None
        if not isinstance(choices, list) or not choices:
            return event
        changed = [self._choice(choice) for choice in choices]
        self._last = {key: chunk[key] for key in chunk if key not in ("choices", "usage")}
        if all(len(new) == 1 and new[0] is old for new, old in zip(changed, choices, strict=True)):
            return event
        events = [{**chunk, "choices": [choice]} for new in changed for choice in new]
        for earlier in events[:-1]:
            earlier.pop("usage", None)
        return b"".join(_as_event(one) for one in events)

    def _choice(self, choice: Any) -> list[Json]:
        """What becomes of a choice in an event: itself, or others in its place."""
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(delta, dict):
            return [choice]
        text = self._text_of(choice)
        content, reason = delta.get("content"), choice.get("finish_reason")
        if text is None or not (isinstance(content, str) or reason):
            return [choice]
        pieces = text.feed(content) if isinstance(content, str) else []
        if reason:
            pieces += text.flush()
        if pieces == [content] or (not pieces and not content and not (reason and text.calls)):
            return [choice]
        rest = {key: value for key, value in delta.items() if key != "content"}
        made = [{**choice, "delta": delta, "finish_reason": None} for delta in self._deltas(pieces, text)]
        if made:
            made[0]["delta"] = {**rest, **made[0]["delta"]}
        elif rest or reason:
            made = [{**choice, "delta": rest, "finish_reason": None}]
        for later in made[1:]:
            later.pop("logprobs", None)
        if reason:
            made[-1]["finish_reason"] = "tool_calls" if text.calls and reason == "stop" else reason
        return made

    def _deltas(self, pieces: list[Piece], text: Reader) -> list[Json]:
        """*pieces* as deltas: a call is its name first, then its arguments."""
        made: list[Json] = []
        index = text.calls - sum(isinstance(piece, Call) for piece in pieces)
        for piece in pieces:
            if isinstance(piece, str):
                made.append({"content": piece})
                continue
            if isinstance(piece, Thought):
                made.append({"reasoning": piece.text})
                continue
            begun = {"name": piece.name, "arguments": ""}
            call = {"index": index, "id": self._new_id(), "type": "function", "function": begun}
            made.append({"tool_calls": [call]})
            made.append({"tool_calls": [{"index": index, "function": {"arguments": piece.arguments}}]})
            index += 1
        return made

    def _text_of(self, choice: Json) -> Reader | None:
        index = choice.get("index", 0)
        if not isinstance(index, int) or not 0 <= index < MOST_CHOICES:
            return None
        text = self._texts.get(index)
        if text is None:
            text = self._texts[index] = reader_of(self._format, self._shapes)
        return text

    def _ended(self) -> bytes:
        """Events for what still waits when a stream ends without a finish reason."""
        out = []
        for index, text in self._texts.items():
            for delta in self._deltas(text.flush(), text):
                choice = {"index": index, "delta": delta, "finish_reason": None}
                out.append(_as_event({**self._last, "choices": [choice]}))
        self._texts.clear()
        return b"".join(out)

    def _echoed(self, data: bytes) -> bytes:
        return data if self._echo is None or not data else self._echo.feed(data)

    # -- not streamed ------------------------------------------------------------------------------

    def replace_once(self, document: bytes) -> bytes | None:
        """The whole *document* with calls in their place; None where nothing in it changes."""
        changed = self._document(document)
        if self._echo is None:
            return changed
        return self._echo.replace_once(changed or document) or changed

    def _document(self, document: bytes) -> bytes | None:
        try:
            value = _decode(document)
        except _WRONG:
            return None
        choices = value.get("choices") if isinstance(value, dict) else None
        found = [self._answered(choice) for choice in choices] if isinstance(choices, list) else []
        return _encode(value) if any(found) else None

    def _answered(self, choice: Any) -> bool:
        """Change a choice of a document; False where it has no calls in its text."""
        message = choice.get("message") if isinstance(choice, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(message, dict) or not isinstance(content, str) or message.get("tool_calls"):
            return False
        text = reader_of(self._format, self._shapes)
        pieces = text.feed(content) + text.flush()
        calls = [piece for piece in pieces if isinstance(piece, Call)]
        said = "".join(piece for piece in pieces if isinstance(piece, str))
        thought = "".join(piece.text for piece in pieces if isinstance(piece, Thought))
        if thought:
            message["reasoning"] = thought
        if not calls:
            if said == content:
                return False
            message["content"] = said
            return True
        message["content"] = said.strip() or None
        message["tool_calls"] = [
            {
                "id": self._new_id(),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in calls
        ]
        if choice.get("finish_reason") == "stop":
            choice["finish_reason"] = "tool_calls"
        return True


def _as_event(chunk: Json) -> bytes:
    return b"data: " + _encode(chunk) + b"\n\n"


# -- the request's tools ---------------------------------------------------------------------------


class _Property(msgspec.Struct):
    type: msgspec.Raw = msgspec.Raw()


class _Parameters(msgspec.Struct):
    properties: dict[str, _Property] = {}


class _Function(msgspec.Struct):
    name: str
    parameters: _Parameters | None = None


class _Tool(msgspec.Struct):
    function: _Function


class _Request(msgspec.Struct):
    tools: list[_Tool] | None = None
    tool_choice: msgspec.Raw = msgspec.Raw()


_mentions_tools = re.compile(rb'"tools"').search
_read_request = msgspec.json.Decoder(_Request).decode


def tools_of(body: Bytes) -> Shapes | None:
    """The tools of a JSON request; None where it has none, or forbids their use. Never raises."""
    if _mentions_tools(body) is None:
        return None
    try:
        read = _read_request(body)
    except _WRONG:
        return None
    if not read.tools or bytes(read.tool_choice) == b'"none"':
        return None
    return {
        tool.function.name: {
            name: bytes(shape.type).strip(b'"').decode("utf-8", "replace")
            for name, shape in (tool.function.parameters or _Parameters()).properties.items()
        }
        for tool in read.tools
    }
