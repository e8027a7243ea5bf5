"""Reads a checkpoint's folder: small JSON files and sizes, never the weights. Bad files raise nothing."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec

from registry.checkpoint import Checkpoint, CheckpointFiles, Weights, interpret
from registry.gguf import read_gguf
from registry.untrusted import Json

MAX_JSON_BYTES = 32 * 2**20
"""The largest real one, the index of a 1000 B model, has 10 MB."""
MAX_HEADER_BYTES = 100 * 2**20
"""As the safetensors library itself."""
MAX_TEMPLATE_BYTES = 2**20
MAX_CARD_BYTES = 8 * 2**10
"""Of README.md: its head is at the start."""

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.(safetensors|bin)$")


def read_checkpoint(folder: Path) -> Checkpoint:
    """What the files in *folder* say. A broken or missing file becomes `problem` or an unknown.

    A folder without a configuration but with GGUF files is what the first of these says.
    """
    files = read_files(folder)
    if files.weights.format == "gguf" and not files.config and not files.params:
        first = min(name for name in files.names if name.endswith(".gguf") and not name.startswith("mmproj"))
        return read_gguf(folder / first)
    return interpret(files)


class CheckpointMemory:
    """Remembers checkpoints between scans, so that a reload does not parse 500 folders again.

    Only sound ones are kept: a folder whose files still grow is read anew each time.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], Checkpoint]] = {}

    def read(self, folder: Path) -> Checkpoint:
        """As `read_checkpoint`; from memory when neither the folder nor its config.json has changed."""
        stamp = _stamp(folder)
        known = self._known.get(folder)
        if known is not None and known[0] == stamp:
            return known[1]
        found = read_checkpoint(folder)
        if found.problem is None and stamp:
            self._known[folder] = (stamp, found)
        else:
            self._known.pop(folder, None)
        return found

    def keep_only(self, folders: set[Path]) -> None:
        """Forget all others: a daemon that runs for months sees many downloads come and go."""
        for folder in self._known.keys() - folders:
            del self._known[folder]


def _stamp(folder: Path) -> tuple[int, ...]:
    try:
        stats = [os.stat(path) for path in (folder, f"{folder}/config.json")]  # noqa: PTH116  quicker by half
    except OSError:
        return ()
    return tuple(number for stat in stats for number in (stat.st_ino, stat.st_mtime_ns, stat.st_size))


def read_files(folder: Path) -> CheckpointFiles:
    """The parsed files of *folder*, and what is wrong with them."""
    try:
        names = frozenset(os.listdir(folder))  # noqa: PTH208  names are all we need, 500 folders of them
    except OSError as error:
        return CheckpointFiles(problems=(f"cannot be read: {error.strerror or error}",))
    files = _Folder(folder, names)
    config = files.mapping("config.json")
    weights = _weights(files)
    if not _DESCRIBED_BY & names and weights.format != "gguf":
        files.problems.append("no config.json")
    tokenizer = files.mapping("tokenizer_config.json")
    return CheckpointFiles(
        names=names,
        config=config,
        params=files.mapping("params.json") if "config.json" not in names else {},
        tokenizer_config=tokenizer,
        chat_template=_chat_template(files, tokenizer),
        modules=_modules(files),
        sentence_config=files.mapping("sentence_bert_config.json"),
        adapter_config=files.mapping("adapter_config.json") if "adapter_config.json" in names else None,
        quant_config=files.mapping("hf_quant_config.json") or files.mapping("quantize_config.json"),
        license=_license(files),
        weights=weights,
        problems=tuple(files.problems),
    )


_DESCRIBED_BY = frozenset({"config.json", "params.json", "adapter_config.json", "model_index.json"})


class _Folder:
    """A folder's names, and its files read once with their limits."""

    def __init__(self, path: Path, names: frozenset[str]) -> None:
        self.path = path
        self.names = names
        self.problems: list[str] = []

    def text(self, name: str, limit: int) -> str | None:
        """The text of a file; None when it is not there or cannot be used, which is then a problem."""
        if name not in self.names:
            return None
        try:
            with (self.path / name).open("rb") as file:
                raw = file.read(limit + 1)
        except OSError:
            # In the hub cache: a link to a blob that is not there yet.
            self.problems.append(f"partial download: {name} missing")
            return None
        if len(raw) > limit:
            self.problems.append(f"{name} is larger than {limit // 2**20} MiB")
            return None
        return raw.decode("utf-8", "replace")

    def head(self, name: str, limit: int) -> str:
        """How a file begins; nothing where there is none, which is no problem."""
        if name not in self.names:
            return ""
        try:
            with (self.path / name).open("rb") as file:
                return file.read(limit).decode("utf-8", "replace")
        except OSError:
            return ""

    def json(self, name: str) -> Any:
        """The value in a JSON file, or None."""
        text = self.text(name, MAX_JSON_BYTES)
        if text is None:
            return None
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            pass  # it is strict: Infinity, which configurations of Mamba have, is left to the other
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            self.problems.append(f"{name} is not valid JSON")
            return None

    def mapping(self, name: str) -> Json:
        """The object in a JSON file; empty when there is none."""
        value = self.json(name)
        if isinstance(value, dict):
            return value
        if value is not None:
            self.problems.append(f"{name} is not a JSON object")
        return {}

    def size(self, name: str) -> int | None:
        """Bytes of a file, following links; None when it is not there."""
        try:
            return (self.path / name).stat().st_size
        except OSError:
            return None


def _chat_template(files: _Folder, tokenizer: Json) -> str | None:
    text = files.text("chat_template.jinja", MAX_TEMPLATE_BYTES)
    if text is not None:
        return text
    given = tokenizer.get("chat_template")
    if given is None and "chat_template.json" in files.names:
        given = files.mapping("chat_template.json").get("chat_template")
    if isinstance(given, str):
        return given
    if isinstance(given, list):  # several, by name: all of them count
        texts = [entry.get("template") for entry in given if isinstance(entry, dict)]
        return "\n".join(text for text in texts if isinstance(text, str)) or None
    return None


_LICENSE = re.compile(r"^license(_name)?:[ \t]*['\"]?([\w.+-]{1,60})", re.MULTILINE)


def _license(files: _Folder) -> str | None:
    """The card's head: `license: apache-2.0`, and the name where that says `other`."""
    head = files.head("README.md", MAX_CARD_BYTES)
    if not head.startswith("---"):
        return None
    said = {bool(named): value for named, value in _LICENSE.findall(head[3:].partition("\n---")[0])}
    return said.get(True, "other") if said.get(False) == "other" else said.get(False)


def _modules(files: _Folder) -> tuple[Json, ...] | None:
    value = files.json("modules.json")
    if not isinstance(value, list):
        return None
    return tuple(entry for entry in value if isinstance(entry, dict))


# -- weights ---------------------------------------------------------------------------------------


def _weights(files: _Folder) -> Weights:
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if index in files.names:
            kind = "bin" if "bin" in index else "safetensors"
            return _indexed(files, index, kind)
    safetensors = sorted(name for name in files.names if name.endswith(".safetensors"))
    # Mistral ships the same weights twice; only one of them is loaded.
    chosen = (
        [name for name in safetensors if name.startswith("model")]
        or [name for name in safetensors if not name.startswith(("consolidated", "adapter_"))]
        or [name for name in safetensors if name.startswith("consolidated")]
    )
    if chosen:
        return _plain(files, chosen, "safetensors")
    binary = sorted(
        name for name in files.names if name.startswith("pytorch_model") and name.endswith(".bin")
    )
    if binary:
        return _plain(files, binary, "bin")
    gguf = sorted(name for name in files.names if name.endswith(".gguf") and not name.startswith("mmproj"))
    if gguf:
        return _plain(files, gguf, "gguf")
    return Weights(problem="partial download: no weights")


def _indexed(files: _Folder, index: str, kind: str) -> Weights:
    content = files.mapping(index)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        return Weights(kind, problem=f"{index} lists no weights")
    # Of the strings each once, before anything else: an index names thousands of tensors in few files.
    named = set(filter(_is_text, weight_map.values()))
    shards = sorted(name for name in named if "/" not in name)
    found = _plain(files, shards, kind)
    metadata = content.get("metadata")
    total = metadata.get("total_parameters") if isinstance(metadata, dict) else None
    parameters = int(total) if isinstance(total, int | float) and 0 < total < 10**14 else None
    return Weights(kind, found.size_bytes, parameters, found.problem)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _plain(files: _Folder, names: list[str], kind: str) -> Weights:
    sizes = {name: files.size(name) for name in names}
    total = sum(size or 0 for size in sizes.values())
    missing = [name for name, size in sizes.items() if not size] + _absent_shards(names)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return Weights(kind, total, problem=f"partial download: {missing[0]}{more} missing")
    if kind == "safetensors" and len(names) == 1:
        return _single(files, names[0], total)
    return Weights(kind, total)


def _absent_shards(names: list[str]) -> list[str]:
    """Shards that the names of the others promise: 00002-of-00004 for a folder without it."""
    present = set(names)
    absent: list[str] = []
    for name in names:
        match = _SHARD.search(name)
        if match is None:
            continue
        count = int(match[2])
        for number in range(1, min(count, 1000) + 1):
            other = f"{name[: match.start()]}-{number:05}-of-{match[2]}.{match[3]}"
            if other not in present:
                absent.append(other)
                present.add(other)
    return absent


def _single(files: _Folder, name: str, size: int) -> Weights:
    """A model in one file has no index: its header says whether it is whole, and counts its parameters."""
    try:
        with (files.path / name).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER_BYTES, max(size - 8, 0)):
                return Weights("safetensors", size, problem=f"{name} is damaged or not complete")
            header = json.loads(file.read(length))
    except (OSError, ValueError, RecursionError):
        return Weights("safetensors", size, problem=f"{name} is damaged or not complete")
    tensors = (
        {key: value for key, value in header.items() if key != "__metadata__"}
        if isinstance(header, dict)
        else {}
    )
    ends = [value["data_offsets"][1] for value in tensors.values() if _is_tensor(value)]
    if len(ends) != len(tensors) or 8 + length + max(ends, default=0) != size:
        return Weights("safetensors", size, problem=f"{name} is damaged or not complete")
    return Weights("safetensors", size, _count(tensors))


def _is_tensor(value: object) -> bool:
    match value:
        case {"dtype": str(), "shape": list() as shape, "data_offsets": [int(), int()]}:
            return all(isinstance(size, int) for size in shape)
    return False


_PACKED = ("U32", "I32", "U8", "I8")


def _count(tensors: Json) -> int | None:
    """Parameters, where they are not packed: a packed tensor holds several in one element."""
    total = 0
    for tensor in tensors.values():
        if tensor["dtype"] in _PACKED:
            return None
        count = 1
        for size in tensor["shape"]:
            count *= size
        total += count
    return total or None
