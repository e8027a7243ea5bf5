"""What a request's content asks of a model: images, audio, video, tools, a long answer. Pure.

One search over the bytes says whether there can be anything; only then are the kinds of the content's parts
read, msgspec skipping the rest in C. A member that is spelled with escapes is not seen, and what cannot be
read asks for nothing: the engine refuses it then, later.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from registry.capability import NO_NEEDS, Capability, Needs
from router.ports import Bytes

_C = Capability

_PARTS: Final = {
    # Of chat completions (vLLM's and llama.cpp's kinds as well) and of Anthropic's messages.
    "image_url": _C.VISION,
    "image": _C.VISION,
    "image_pil": _C.VISION,
    "image_embeds": _C.VISION,
    "video_url": _C.VIDEO,
    "video": _C.VIDEO,
    "input_audio": _C.AUDIO,
    "audio_url": _C.AUDIO,
    # Of responses.
    "input_image": _C.VISION,
    "input_video": _C.VIDEO,
}
"""Kinds of content parts, and what it takes to read them."""

_TOKENS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")

_ANY_LENGTH: Final = 2**63

_LARGE: Final = 64 * 1024
"""Bytes. Above this a body is images or audio, and a pass over it costs more than all the rest of its way: it
is only looked into for a model that cannot see."""


class _Inner(msgspec.Struct):
    type: str = ""


class _Part(msgspec.Struct):
    type: str = ""
    content: str | list[_Inner] | None = None
    """Of an Anthropic tool result: parts again."""


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None


class _Body(msgspec.Struct):
    messages: list[_Message] | None = None
    input: str | list[_Message] | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: msgspec.Raw = msgspec.Raw()
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    max_output_tokens: int | None = None


_read = msgspec.json.Decoder(_Body).decode


class NeedsReader:
    """Reads what matters for one kind of model; made once per route."""

    __slots__ = ("_longest", "_search", "_sees", "_watched")

    def __init__(self, watched: frozenset[Capability], *, longest: int | None) -> None:
        """*watched* are the capabilities that matter, and answers above *longest* tokens; None: none."""
        words = [kind for kind, capability in _PARTS.items() if capability in watched]
        words += ["tools"] if _C.TOOL_USE in watched else []
        marks = [f'{word}"' for word in words]
        if longest is not None:
            marks.append(rf'(?:{"|".join(_TOKENS)})"\s*:\s*(\d{{1,9}})(?=[,}}\s])')
        self._watched = watched
        self._longest = _ANY_LENGTH if longest is None else longest
        self._sees = _C.VISION not in watched
        self._search = re.compile(rf'"(?:{"|".join(marks)})'.encode()).search

    def __call__(self, body: Bytes) -> Needs:
        """What the JSON *body* asks for, as far as it matters; `NO_NEEDS` for nothing. Never raises."""
        if self._sees and len(body) > _LARGE:
            return NO_NEEDS
        found = self._search(body)
        while found is not None and found.lastindex and int(found[1]) <= self._longest:
            found = self._search(body, found.end())
        return NO_NEEDS if found is None else self._needs(body)

    def _needs(self, body: Bytes) -> Needs:
        try:
            read = _read(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return NO_NEEDS
        found = _capabilities(read) & self._watched
        for field in _TOKENS:
            tokens = getattr(read, field)
            if tokens is not None and tokens > self._longest:
                return Needs(found, tokens, field)
        return Needs(found) if found else NO_NEEDS


def _capabilities(read: _Body) -> frozenset[Capability]:
    found = set()
    for message in (*(read.messages or ()), *(read.input if isinstance(read.input, list) else ())):
        for part in message.content if isinstance(message.content, list) else ():
            found.add(_PARTS.get(part.type))
            if isinstance(part.content, list):
                found.update(_PARTS.get(inner.type) for inner in part.content)
    # With `none` tools are only mentioned, and engines leave them out of the prompt.
    if read.tools and bytes(read.tool_choice) != b'"none"':
        found.add(_C.TOOL_USE)
    return frozenset(capability for capability in found if capability is not None)


EVERYTHING: Final = NeedsReader(frozenset({_C.VISION, _C.VIDEO, _C.AUDIO, _C.TOOL_USE}), longest=0)
"""For choosing a model: all that a body can ask for."""
