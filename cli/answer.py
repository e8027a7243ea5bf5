"""A streamed answer, read: lines of server-sent events to pieces of text, notes and the end. Pure.

The end is `Done`, and only that: a stream that stops without it was cut, whatever the socket said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of the answer, or (`thinking`) of the reasoning before it."""

    text: str
    thinking: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """An SSE comment: what the daemon does while there is no answer yet (`loading qwen3-8b 42%`)."""

    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """An error event in the stream."""

    message: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Finish:
    """Why the model stopped: `stop`, `length` …"""

    reason: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the engine counted them: its own object."""

    counts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is complete."""


Part = Piece | Note | Failed | Finish | Usage | Done


def parts(lines: Iterable[str]) -> Iterator[Part]:
    """The parts of an answer in order; ends after `Done` or `Failed`, or where the lines end."""
    data: list[str] = []
    for line in lines:
        if line.startswith(":"):
            text = line[1:].strip()
            if text and not text.startswith("keepalive"):
                yield Note(text)
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif line == "" and data:
            for part in _event("\n".join(data)):
                yield part
                if isinstance(part, Done | Failed):
                    return
            data = []
    if data:
        yield from _event("\n".join(data))


def _event(text: str) -> Iterator[Part]:
    if text.strip() == "[DONE]":
        yield Done()
        return
    try:
        event = json.loads(text)
    except ValueError:
        yield Failed(f"the answer holds an event that is no JSON: {text[:80]!r}")
        return
    if not isinstance(event, dict):
        return
    if event.get("error"):
        yield _failure(event["error"])
        return
    for choice in event.get("choices") or ():
        if choice.get("text"):  # a completion's
            yield Piece(str(choice["text"]))
        yield from _pieces(choice.get("delta") or {})
        if choice.get("finish_reason"):
            yield Finish(str(choice["finish_reason"]))
    if isinstance(event.get("usage"), dict):
        yield Usage(event["usage"])


def _failure(error: Any) -> Failed:
    if isinstance(error, dict):
        return Failed(str(error.get("message") or error), str(error.get("code") or ""))
    return Failed(str(error))


def _pieces(delta: Mapping[str, Any]) -> Iterator[Piece]:
    # vLLM and mlx-lm call it `reasoning`, DeepSeek's API and vllm-mlx `reasoning_content`.
    thinking = delta.get("reasoning_content") or delta.get("reasoning")
    if thinking:
        yield Piece(str(thinking), thinking=True)
    if delta.get("content"):
        yield Piece(str(delta["content"]))
