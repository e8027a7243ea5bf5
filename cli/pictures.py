"""Pictures for models that see: a file as a `data:` URL in a message, checked before anything is sent."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Final

from cli import terminal
from cli.daemon import Daemon
from cli.errors import CliError, RefusedError
from cli.models import entries, find

MOST_BYTES: Final = 20 * 2**20
"""Of one picture: a photograph has 5, and engines scale down what is larger. Encoded it grows by a third, and
a request may have 64 MiB (`limits.body_bytes`)."""

_SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


def read_picture(path: Path) -> str:
    """The file as a `data:` URL. Raises CliError when it is no picture that models read, or too large."""
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as problem:
        raise CliError(f"{path} cannot be read: {problem.strerror or problem}") from problem
    kind = kind_of(data)
    if kind is None:
        raise CliError(f"{path} is no picture that models read: PNG, JPEG, GIF and WebP are")
    if len(data) > MOST_BYTES:
        raise CliError(
            f"{path} is larger than {terminal.size(MOST_BYTES)}: scale it down, models do so anyway"
        )
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def kind_of(data: bytes) -> str | None:
    """The media type by the first bytes, whatever the file is called; None for anything else."""
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def content_of(text: str, pictures: list[str]) -> str | list[dict[str, Any]]:
    """A message's content: the text alone, or the pictures and then the text, as OpenAI has it."""
    if not pictures:
        return text
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
    return [*parts, {"type": "text", "text": text}]


def require_sight(daemon: Daemon, model: str) -> None:
    """Return when *model* sees pictures, or when the list does not tell. Raises CliError when it does not."""
    if not sees(daemon, model):
        able = [str(one["id"]) for one in entries(daemon.get("/v1/models")) if _can_see(one)]
        hint = f"; these do: {', '.join(able[:5])}" if able else ", and no other model here does"
        raise CliError(f"{model} does not see pictures{hint}")


def sees(daemon: Daemon, model: str) -> bool:
    """False only for a model whose capabilities are known and do not include vision."""
    try:
        entry = find(entries(daemon.get("/v1/models")), model)
    except RefusedError:
        return True  # known by another name, perhaps: the daemon decides
    return _can_see(entry) or not entry.get("capabilities")


def _can_see(entry: Any) -> bool:
    return not entry.get("problem") and "vision" in (entry.get("capabilities") or ())
