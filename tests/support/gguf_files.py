"""GGUF files for tests: a true header, and weights of no bytes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_gguf(
    path: Path,
    fields: Mapping[str, Any],
    tensors: Mapping[str, Sequence[int]] | None = None,
    *,
    version: int = 3,
) -> Path:
    """A GGUF file with these key-value pairs (text, whole numbers, true and false, lists of one of these)."""
    given = tensors or {}
    body = b"GGUF" + struct.pack("<IQQ", version, len(given), len(fields))
    for key, value in fields.items():
        kind, data = _value(value)
        body += _text(key) + struct.pack("<I", kind) + data
    for name, shape in given.items():
        body += _text(name) + struct.pack("<I", len(shape))
        body += b"".join(struct.pack("<Q", length) for length in shape) + struct.pack("<IQ", 0, 0)
    path.write_bytes(body)
    return path


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, list):
        kind = _value(value[0])[0] if value else 4
        return 9, struct.pack("<IQ", kind, len(value)) + b"".join(_value(item)[1] for item in value)
    return 8, _text(str(value))
