"""What `modelyard.Client` returns and raises, and how requests are written and answers read. No I/O but the
reading of image files that a caller names."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

Message = Mapping[str, Any]
"""One turn in OpenAI's shape: `{"role": "user", "content": …}`."""
Image = str | bytes | Path
"""A URL (`https:` or `data:`), the bytes of an image file, or the path of one on this machine."""

_TYPES: Final = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}


# -- errors ----------------------------------------------------------------------------------------


class ModelyardError(Exception):
    """Everything that a client raises on purpose."""


class UnreachableError(ModelyardError):
    """Nobody answers at the daemon's address, or somebody else does."""


class NoAnswerError(ModelyardError):
    """The daemon took the request and did not answer within the client's `timeout`."""


class AnswerCutError(ModelyardError):
    """The answer ended before it was complete."""


class RefusedError(ModelyardError):
    """The daemon, or the engine behind it, answered with an error; the message says what to do."""

    def __init__(
        self, message: str, *, code: str = "", status: int = 0, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        """Stable: `model_not_found`, `queue_full` … Act on this and not on the message."""
        self.status = status
        """HTTP status; 0 when it came in the middle of a stream."""
        self.retry_after = retry_after
        """Seconds after which another try makes sense, if the daemon knows."""


# -- results ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the engine counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer."""

    text: str
    finish_reason: str | None = None
    """`stop`, `length`, `tool_calls` …"""
    model: str = ""
    usage: Usage | None = None
    """None when the engine did not count."""
    reasoning: str = ""
    """What the model thought before it answered, where the engine tells it apart."""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """In OpenAI's shape."""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The whole answer as it came."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a streamed answer."""

    text: str
    thinking: bool = False
    """It belongs to the reasoning before the answer."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model after it was loaded or unloaded."""

    model: str
    state: str
    """`ready`, `stopped` …; `endpoint` for a server that is not ours; "" when nothing was to be done."""
    engine: str = ""
    memory_bytes: int | None = None
    context_length: int | None = None
    load_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that can be asked for, loaded or not."""

    id: str
    state: str = ""
    engine: str = ""
    capabilities: tuple[str, ...] = ()
    context_length: int | None = None
    size_bytes: int | None = None
    aliases: tuple[str, ...] = ()
    problem: str = ""
    """Why it cannot be served; "" when it can."""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class YardStatus:
    """The daemon at one moment."""

    version: str
    ready: bool
    """Some request can make progress."""
    not_ready_because: str
    default_model: str | None
    loaded: tuple[str, ...]
    """Ids of the models that are ready."""
    in_flight: int
    waiting: int
    uptime_seconds: float
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Everything that `/api/status` says."""


# -- requests --------------------------------------------------------------------------------------


def conversation(
    said: str | Sequence[Message], *, system: str = "", images: Sequence[Image] = ()
) -> list[dict[str, Any]]:
    """The messages of a request: one question, or a conversation; images belong to its last turn.

    Raises OSError when an image cannot be read and ValueError when it is none.
    """
    turns: list[dict[str, Any]] = (
        [{"role": "user", "content": said}] if isinstance(said, str) else [dict(turn) for turn in said]
    )
    if images:
        if not turns:
            raise ValueError("images belong to a question, and there is none")
        last = turns[-1]
        text = last.get("content") or ""
        words = [{"type": "text", "text": text}] if isinstance(text, str) else list(text)
        pictures = [{"type": "image_url", "image_url": {"url": image_url(image)}} for image in images]
        last["content"] = [*pictures, *words]
    return [{"role": "system", "content": system}, *turns] if system else turns


def image_url(image: Image) -> str:
    """*image* as a URL that engines understand; files and bytes become `data:`."""
    if isinstance(image, str):
        if not image.startswith(("http://", "https://", "data:")):
            raise ValueError(f"{image[:60]!r} is no URL: for a file pass pathlib.Path({image[:60]!r})")
        return image
    data = image.read_bytes() if isinstance(image, Path) else image
    kind = next((kind for beginning, kind in _TYPES.items() if data.startswith(beginning)), None)
    if kind is None:
        raise ValueError(f"{image if isinstance(image, Path) else 'the image'} is no PNG, JPEG, GIF or WebP")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


# -- answers ---------------------------------------------------------------------------------------


def read_answer(found: Mapping[str, Any]) -> Answer:
    """A whole chat or text completion."""
    choice = (found.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    return Answer(
        text=str(message.get("content") or choice.get("text") or ""),
        finish_reason=choice.get("finish_reason"),
        model=str(found.get("model") or ""),
        usage=read_usage(found.get("usage")),
        reasoning=str(message.get("reasoning_content") or message.get("reasoning") or ""),
        tool_calls=tuple(message.get("tool_calls") or ()),
        raw=found,
    )


def read_usage(found: Any) -> Usage | None:
    """The token counts in OpenAI's `usage`, or None."""
    if not isinstance(found, Mapping):
        return None
    return Usage(int(found.get("prompt_tokens") or 0), int(found.get("completion_tokens") or 0))


def read_model_state(found: Mapping[str, Any]) -> ModelState:
    """The answer to a load or an unload."""
    return ModelState(
        model=str(found.get("model") or ""),
        state=str(found.get("state") or ""),
        engine=str(found.get("engine") or ""),
        memory_bytes=found.get("memory_bytes"),
        context_length=found.get("context_length"),
        load_seconds=found.get("load_seconds"),
    )


def read_models(found: Mapping[str, Any]) -> tuple[ModelInfo, ...]:
    """The answer to `GET /v1/models`."""
    return tuple(_model_info(entry) for entry in found.get("data") or ())


def _model_info(entry: Mapping[str, Any]) -> ModelInfo:
    problem = entry.get("problem")
    return ModelInfo(
        id=str(entry.get("id") or ""),
        state=str(entry.get("state") or ""),
        engine=str(entry.get("engine") or ""),
        capabilities=tuple(entry.get("capabilities") or ()),
        context_length=entry.get("context_length"),
        size_bytes=entry.get("size_bytes"),
        aliases=tuple(entry.get("aliases") or ()),
        problem=str(problem.get("message") or "") if isinstance(problem, Mapping) else "",
        raw=entry,
    )


def read_status(found: Mapping[str, Any]) -> YardStatus:
    """The answer to `GET /api/status`."""
    return YardStatus(
        version=str(found.get("version") or ""),
        ready=bool(found.get("ready")),
        not_ready_because=str(found.get("not_ready_because") or ""),
        default_model=found.get("default_model"),
        loaded=tuple(str(one["id"]) for one in found.get("models") or () if one.get("state") == "ready"),
        in_flight=int(found.get("in_flight") or 0),
        waiting=int(found.get("waiting") or 0),
        uptime_seconds=float(found.get("uptime_seconds") or 0.0),
        raw=found,
    )


def read_refusal(status: int, body: bytes, *, retry_after: str | None = None) -> RefusedError:
    """An answer of 400 and above: its envelope's message and code, or the first of its text."""
    seconds = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    inner = found.get("error") if isinstance(found, dict) else None
    if isinstance(inner, dict) and inner.get("message"):
        code = str(inner.get("code") or "")
        return RefusedError(str(inner["message"]), code=code, status=status, retry_after=seconds)
    said = body.decode("utf-8", "replace").strip()[:200] or "nothing"
    return RefusedError(f"the answer was {status}: {said}", status=status, retry_after=seconds)


class StreamReader:
    """Reads the lines of a streamed answer. `feed` each; `complete` says whether the end was seen."""

    def __init__(self) -> None:
        self.complete = False
        self.finish_reason: str | None = None
        self.model = ""
        self.usage: Usage | None = None
        self.note = ""
        """What the daemon did last while there was no answer yet: `loading qwen3-8b 42% eta 12s`."""
        self._text: list[str] = []

    @property
    def text(self) -> str:
        """The answer so far, without the reasoning."""
        return "".join(self._text)

    def feed(self, line: str) -> tuple[Piece, ...]:
        """The pieces in *line*. Raises RefusedError for an error event, AnswerCutError for a broken one."""
        if line.startswith(":"):
            self.note = line[1:].strip()
        if self.complete or not line.startswith("data:"):
            return ()
        data = line[5:].strip()
        if data == "[DONE]":
            self.complete = True
            return ()
        try:
            event = json.loads(data)
        except ValueError:
            raise AnswerCutError(f"the answer holds an event that is no JSON: {data[:80]!r}") from None
        return self._read(event) if isinstance(event, dict) else ()

    def _read(self, event: Mapping[str, Any]) -> tuple[Piece, ...]:
        if event.get("error"):
            raise read_refusal(0, json.dumps(event).encode())
        self.model = str(event.get("model") or self.model)
        self.usage = read_usage(event.get("usage")) or self.usage
        pieces: list[Piece] = []
        for choice in event.get("choices") or ():
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            delta = choice.get("delta") or {}
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            text = delta.get("content") or choice.get("text")
            if thought:
                pieces.append(Piece(str(thought), thinking=True))
            if text:
                self._text.append(str(text))
                pieces.append(Piece(str(text)))
        return tuple(pieces)

    def finished(self) -> None:
        """The lines have ended. Raises AnswerCutError when the answer had not."""
        if not self.complete:
            raise AnswerCutError(
                f"the answer was cut after {len(self.text)} characters: the mark of its end is missing"
            )
