"""Checkpoints that say what they are told: real architectures, real tokenizers, weights set by hand.

An engine loads and runs them like any other model, so the tokens, their text and what its parsers make of it
are its own. Asked one of its questions, such a model says the answer, token by token, under greedy decoding;
nothing is trained, and it has two million bytes.

How: one layer has four heads. One looks at the token itself, two at the ones before it, one at the token by
which the question is known. Each copies which token that is, in a place of its own per token of an answer,
and the output projection adds up what each head says for and against every token that may come next: a table,
found with the perceptron's rule (`scripted_tokens`).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.support.scripted_tokens import (
    BEFORE,
    EARLIER,
    HEADS,
    MOST_PLACES,
    QUESTION,
    SELF,
    Tokens,
    Voice,
    certain_tokens,
)

HEAD: Final = MOST_PLACES + 1
"""Dimensions of a head: one place per token of an answer, the last one for what all tokens share."""
HIDDEN: Final = 2 * HEAD
SHARED: Final = MOST_PLACES
SHARP: Final = 12.0
NEAR: Final = 3.0
"""Sizes of queries and keys: enough for a head to look at one token only, among thousands."""
SLOW: Final = 0.05
"""Pairs of the rotary embedding that turn by less do not help to tell neighbours apart."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What an architecture has besides the plain one."""

    config: Mapping[str, Any]
    """`config.json`, but for sizes."""
    layers: int = 1
    """The first one speaks, the others add nothing."""
    theta: float = 1_000_000.0
    """Of the first layer's rotary embedding."""
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    head_norms: bool = False
    norm_of_one: float = 1.0
    """What stands for 1 in a norm's weights: Gemma 3 keeps the difference from 1."""
    extra: Mapping[str, tuple[Sequence[int], float]] = field(default_factory=dict)
    """Further tensors of each layer, filled with one number."""
    feed_forward: bool = True
    dtype: str = "float32"
    """Or bfloat16, for a vocabulary that makes it big."""


def write_scripted(folder: Path, shape: Shape, voice: Voice, script: Mapping[str, str]) -> Path:
    """A checkpoint in *folder* that answers each question of *script* with its text.

    Raises ValueError as `certain_tokens`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokens = certain_tokens(voice, script)
    end = voice.ends[0]
    sizes = {
        "hidden_size": HIDDEN,
        "intermediate_size": HEAD,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "num_hidden_layers": shape.layers,
        "head_dim": HEAD,
        "vocab_size": tokens.size,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "eos_token_id": tokens.ids[end],
        "pad_token_id": tokens.ids[end],
        "bos_token_id": None if voice.bos is None else tokens.ids[voice.bos],
        "tie_word_embeddings": False,
        "attention_dropout": 0.0,
        "torch_dtype": shape.dtype,
    }
    generation = {"eos_token_id": [tokens.ids[one] for one in voice.ends], "pad_token_id": tokens.ids[end]}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": voice.bos,
        "eos_token": end,
        "pad_token": end,
        "model_max_length": 8192,
        "clean_up_tokenization_spaces": False,
        "chat_template": voice.template,
    }
    for name, value in {
        "config.json": {**sizes, **shape.config},
        "generation_config.json": generation,
        "tokenizer.json": tokens.file(),
        "tokenizer_config.json": settings,
    }.items():
        (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(_weights(shape, tokens))
    return folder


# -- weights ---------------------------------------------------------------------------------------


class _Matrix:
    """A tensor that is mostly one number."""

    def __init__(self, *shape: int, fill: float = 0.0, dtype: str = "float32") -> None:
        self.shape = shape
        self.dtype = {"float32": "F32", "bfloat16": "BF16"}[dtype]
        self.data = bytearray(self._packed(fill) * math.prod(shape))

    def _packed(self, value: float) -> bytes:
        whole = struct.pack("<f", value)
        return whole if self.dtype == "F32" else whole[2:]

    def put(self, row: int, column: int, value: float) -> None:
        """Set one number."""
        packed = self._packed(value)
        at = len(packed) * (row * self.shape[-1] + column)
        self.data[at : at + len(packed)] = packed


def _weights(shape: Shape, tokens: Tokens) -> bytes:
    """`model.safetensors`."""

    def matrix(*sizes: int, fill: float = 0.0) -> _Matrix:
        return _Matrix(*sizes, fill=fill, dtype=shape.dtype)

    embeddings, head = matrix(tokens.size, HIDDEN), matrix(tokens.size, HIDDEN)
    places = {tokens.ids[token]: place for token, place in tokens.places.items()}
    for row in range(tokens.size):
        embeddings.put(row, SHARED, 1.0)
        # All of one length: a longer key would draw a head's look to itself.
        embeddings.put(row, places.get(row, HIDDEN - 1), 1.0)
    for row, place in places.items():
        head.put(row, HEAD + place, 4.0)
    made = {
        "model.embed_tokens.weight": embeddings,
        "model.norm.weight": matrix(HIDDEN, fill=shape.norm_of_one),
        "lm_head.weight": head,
    }
    for index in range(shape.layers):
        layer = f"model.layers.{index}."
        for norm in shape.norms:
            made[f"{layer}{norm}.weight"] = matrix(HIDDEN, fill=shape.norm_of_one)
        for name, (sizes, fill) in shape.extra.items():
            made[layer + name] = matrix(*sizes, fill=fill)
        if shape.head_norms:
            for norm in ("q_norm", "k_norm"):
                made[f"{layer}self_attn.{norm}.weight"] = matrix(HEAD, fill=SHARP - 1 + shape.norm_of_one)
        if shape.feed_forward:
            for name, rows, columns in (("gate", HEAD, HIDDEN), ("up", HEAD, HIDDEN), ("down", HIDDEN, HEAD)):
                made[f"{layer}mlp.{name}_proj.weight"] = matrix(rows, columns)
        wide = HEADS * HEAD
        heads = {name: matrix(wide, HIDDEN) for name in "qkv"} | {"o": matrix(HIDDEN, wide)}
        if index == 0:
            _look(heads["q"], heads["k"], shape, tokens)
            _say(heads["v"], heads["o"], tokens)
        made |= {f"{layer}self_attn.{name}_proj.weight": matrix for name, matrix in heads.items()}
    return _safetensors(made)


def _look(query: _Matrix, key: _Matrix, shape: Shape, tokens: Tokens) -> None:
    """Make each head look at its token.

    The rotary embedding turns pair `i` of a query and of a key by position times `angle[i]`; their product is
    greatest where they come to lie on each other. A query turned back by one position finds the token before.
    """
    half = HEAD // 2
    for back, at in enumerate((SELF, BEFORE, EARLIER)):
        for i in range(half):
            angle = shape.theta ** (-i / half)
            if angle < SLOW:
                break
            query.put(at * HEAD + i, SHARED, NEAR * math.cos(back * angle))
            query.put(at * HEAD + half + i, SHARED, -NEAR * math.sin(back * angle))
            key.put(at * HEAD + i, SHARED, NEAR)
    # The pair that hardly turns at all: how far away the question is does not matter.
    still = QUESTION * HEAD + half - 1
    query.put(still, SHARED, SHARP)
    for asked in tokens.asked.values():
        key.put(still, tokens.places[asked], 1.0)


def _say(value: _Matrix, output: _Matrix, tokens: Tokens) -> None:
    """Make each head say what it has to about the token that it looks at."""
    for at in range(HEADS):
        for place in tokens.places.values():
            value.put(at * HEAD + place, place, 1.0)
    for (at, seen), words in tokens.points.items():
        for following, points in words.items():
            output.put(HEAD + tokens.places[following], at * HEAD + tokens.places[seen], points)


def _safetensors(tensors: Mapping[str, _Matrix]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, matrix in tensors.items():
        end = offset + len(matrix.data)
        header[name] = {"dtype": matrix.dtype, "shape": list(matrix.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(matrix.data for matrix in tensors.values())
