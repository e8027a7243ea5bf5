"""Checkpoints for tests: real layouts with weights of a few bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "torch_dtype": "float32",
    "use_sliding_window": False,
    "sliding_window": None,
}
CHAT_TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def safetensors(tensors: Mapping[str, tuple[str, Sequence[int]]]) -> bytes:
    """A safetensors file with zeroed tensors of the given (dtype, shape)."""
    widths = {"F32": 4, "BF16": 2, "F16": 2, "U32": 4, "U8": 1}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        size = widths[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(offset)


SMALL = safetensors({"model.embed_tokens.weight": ("F32", (4, 8)), "model.norm.weight": ("F32", (8,))})


def write_checkpoint(folder: Path, config: Mapping[str, Any] = QWEN3, **files: object) -> Path:
    """A complete checkpoint in *folder*. Further *files* by name, with `__` for a dot: text, bytes or JSON.

    None leaves a file out: `model__safetensors=None`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, object] = {
        "config.json": config,
        "tokenizer_config.json": {"chat_template": CHAT_TEMPLATE, "model_max_length": 10**30},
        "model.safetensors": SMALL,
    }
    contents.update({name.replace("__", "."): value for name, value in files.items()})
    for name, value in contents.items():
        if isinstance(value, bytes):
            (folder / name).write_bytes(value)
        elif isinstance(value, str):
            (folder / name).write_text(value)
        elif value is not None:
            (folder / name).write_text(json.dumps(value))
    return folder


def write_hub_model(
    cache: Path, repo: str, *, commit: str = "c0ffee", main: bool = True, **files: object
) -> Path:
    """A model in a hub cache, blobs and links as the libraries make them; returns its snapshot."""
    root = cache / ("models--" + repo.replace("/", "--"))
    snapshot = root / "snapshots" / commit
    plain = write_checkpoint(root / "plain", **files)  # type: ignore[arg-type]  # a config may be among the files
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    snapshot.mkdir(parents=True)
    for file in sorted(plain.iterdir()):
        blob = root / "blobs" / f"{commit}-{file.name}"
        file.rename(blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    plain.rmdir()
    if main:
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / "main").write_text(commit)
    return snapshot
