"""Checkpoints that say what they are told: real architectures, real tokenizers, weights set by hand.

An engine loads and runs them like any other model, so the tokens, their text and what its parsers make of it
are its own. Asked one of its questions, which are tokens, such a model says the answer, token by token, under
greedy decoding; nothing is trained, and it has two million bytes.

How: one layer has three heads at work. One looks at the token itself, one at the token before it, one at the
question. Each copies which token that is (one place per token of a script), and the output projection adds up
what each of the three says for and against every token that may come next: a table, found here with the
perceptron's rule.
"""

from __future__ import annotations

import json
import math
import random
import struct
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HEAD: Final = 128
"""Dimensions of a head: one place per token of a script, the last one for what all tokens share."""
HIDDEN: Final = 2 * HEAD
HEADS: Final = 4
"""The fourth one is idle: transformers wants the hidden size to be a multiple."""
SELF, BEFORE, QUESTION = range(3)
SHARED: Final = HEAD - 1
MARGIN: Final = 3
"""By how many points the right token leads, at least."""
ROUNDS: Final = 60
"""Of the perceptron: it needs a dozen where there is a table at all."""
SHARP: Final = 12.0
NEAR: Final = 3.0
"""Sizes of queries and keys: enough for a head to look at one token only, among thousands."""
SLOW: Final = 0.05
"""Pairs of the rotary embedding that turn by less do not help to tell neighbours apart."""
ASKED: Final = "?"
"""In place of the question in `Voice.prompt_end`."""
SPLITS: Final = 40
"""Ways to split the texts that are tried: in most of them no place looks like another to all three heads."""


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


@dataclass(frozen=True, slots=True)
class Voice:
    """How a family talks: its shape, its special tokens and its chat template."""

    shape: Shape
    specials: Mapping[str, bool]
    """Tokens of their own to whether decoding leaves them out when special ones are skipped."""
    ends: tuple[str, ...]
    """Tokens that end an answer; a text that ends with none of them gets the first."""
    prompt_end: tuple[str, str]
    """The last two tokens of a prompt: of *specials*, single characters, or `ASKED` for the question."""
    template: str
    bos: str | None = None


def write_scripted(folder: Path, voice: Voice, script: Mapping[str, str]) -> Path:
    """A checkpoint in *folder* that answers each question of *script* with its text.

    Raises ValueError where the three heads see the same at two places and something else follows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokens = _certain_tokens(voice, script)
    end = voice.ends[0]
    sizes = {
        "hidden_size": HIDDEN,
        "intermediate_size": HEAD,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "num_hidden_layers": voice.shape.layers,
        "head_dim": HEAD,
        "vocab_size": tokens.size,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "eos_token_id": tokens.ids[end],
        "pad_token_id": tokens.ids[end],
        "bos_token_id": None if voice.bos is None else tokens.ids[voice.bos],
        "tie_word_embeddings": False,
        "attention_dropout": 0.0,
        "torch_dtype": "float32",
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
        "config.json": {**sizes, **voice.shape.config},
        "generation_config.json": generation,
        "tokenizer.json": tokens.file(),
        "tokenizer_config.json": settings,
    }.items():
        (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(_weights(voice.shape, tokens))
    return folder


# -- tokens ----------------------------------------------------------------------------------------


def _certain_tokens(voice: Voice, script: Mapping[str, str]) -> _Tokens:
    """Raises ValueError where some answer would be lost however it is split."""
    for seed in range(SPLITS):
        tokens = _Tokens(voice, script, random.Random(seed))
        if len(tokens.places) <= SHARED and tokens.learn():
            return tokens
    raise ValueError(f"{voice.shape.config['model_type']}: no split tells all places of these texts apart")


def _byte_letters() -> list[str]:
    """The letter that stands for each byte in a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


_LETTERS: Final = _byte_letters()


class _Tokens:
    """The vocabulary, and what follows what."""

    def __init__(self, voice: Voice, script: Mapping[str, str], choice: random.Random) -> None:
        self._choice = choice
        own = [token for token in voice.specials if token != voice.prompt_end[1]]
        self.specials = {**voice.specials, **dict.fromkeys(script, False)}
        self.vocabulary = {letter: at for at, letter in enumerate(_LETTERS)}
        self.said: dict[str, list[str]] = {
            question: self._pieces(text if text.endswith(voice.ends) else text + voice.ends[0], own)
            for question, text in script.items()
        }
        for pieces in self.said.values():
            for piece in pieces:
                if piece not in voice.specials:
                    self.vocabulary.setdefault(piece, len(self.vocabulary))
        self.ids = dict(self.vocabulary)
        for special in self.specials:
            self.ids[special] = len(self.ids)
        self.size = -(-len(self.ids) // 64) * 64
        self.begin = [one if one in voice.specials else _LETTERS[ord(one)] for one in voice.prompt_end]
        self.begin_asked = voice.prompt_end[0] == ASKED
        places = dict.fromkeys(
            (self.begin[1], *script, *(one for said in self.said.values() for one in said))
        )
        self.places = {token: place for place, token in enumerate(places)}
        """The tokens of scripts, to their places in `x` and `y`."""
        self.points: defaultdict[tuple[int, str], Counter[str]] = defaultdict(Counter)
        """By a head and the token that it sees: what it says for each next one."""

    def learn(self) -> bool:
        """Find `points` with which every answer is said to its end; False where there seem to be none."""
        steps = []
        for question, pieces in self.said.items():
            context = [question if self.begin_asked else self.begin[0], self.begin[1], *pieces]
            for before, last, following in zip(context, context[1:], pieces, strict=False):
                steps.append((tuple(enumerate((last, before, question))), following))
        for _ in range(ROUNDS):
            wrong = 0
            for seen, right in steps:
                score = Counter({right: 0})
                for one in seen:
                    score.update(self.points[one])
                lead = score.pop(right)
                rival = max(score, key=score.__getitem__, default=right)
                if lead - max(score[rival], 0) < MARGIN:
                    wrong += 1
                    for one in seen:
                        self.points[one][right] += 1
                        if rival != right:
                            self.points[one][rival] -= 1
            if not wrong:
                return True
        return False

    def _pieces(self, text: str, specials: Sequence[str]) -> list[str]:
        """*text* as tokens: specials whole, the rest in pieces of a few bytes."""
        pieces: list[str] = []
        rest = text
        while rest:
            special = next((one for one in specials if rest.startswith(one)), None)
            if special is not None:
                pieces.append(special)
                rest = rest.removeprefix(special)
                continue
            plain = rest[: min((at for one in specials if (at := rest.find(one)) > 0), default=len(rest))]
            rest = rest[len(plain) :]
            letters = "".join(_LETTERS[byte] for byte in plain.encode())
            while letters:
                size = self._choice.randint(4, 10)
                pieces.append(letters[:size])
                letters = letters[size:]
        return pieces

    def file(self) -> dict[str, Any]:
        """`tokenizer.json`."""
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        added = [
            {
                "id": self.ids[token],
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": special,
            }
            for token, special in self.specials.items()
        ]
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": self.vocabulary,
                "merges": [],
            },
        }


# -- weights ---------------------------------------------------------------------------------------


class _Matrix:
    """A tensor that is mostly one number."""

    def __init__(self, *shape: int, fill: float = 0.0) -> None:
        self.shape = shape
        self.data = bytearray(struct.pack("<f", fill) * math.prod(shape))

    def put(self, row: int, column: int, value: float) -> None:
        """Set one number."""
        struct.pack_into("<f", self.data, 4 * (row * self.shape[-1] + column), value)


def _weights(shape: Shape, tokens: _Tokens) -> bytes:
    """`model.safetensors`."""
    embeddings, head = _Matrix(tokens.size, HIDDEN), _Matrix(tokens.size, HIDDEN)
    places = {tokens.ids[token]: place for token, place in tokens.places.items()}
    for row in range(tokens.size):
        embeddings.put(row, SHARED, 1.0)
        # All of one length: a longer key would draw a head's look to itself.
        embeddings.put(row, places.get(row, HIDDEN - 1), 1.0)
    for row, place in places.items():
        head.put(row, HEAD + place, 4.0)
    made = {
        "model.embed_tokens.weight": embeddings,
        "model.norm.weight": _Matrix(HIDDEN, fill=shape.norm_of_one),
        "lm_head.weight": head,
    }
    for index in range(shape.layers):
        layer = f"model.layers.{index}."
        for norm in shape.norms:
            made[f"{layer}{norm}.weight"] = _Matrix(HIDDEN, fill=shape.norm_of_one)
        for name, (sizes, fill) in shape.extra.items():
            made[layer + name] = _Matrix(*sizes, fill=fill)
        if shape.head_norms:
            for norm in ("q_norm", "k_norm"):
                fill = SHARP - 1 + shape.norm_of_one
                made[f"{layer}self_attn.{norm}.weight"] = _Matrix(HEAD, fill=fill)
        if shape.feed_forward:
            for name, rows, columns in (("gate", HEAD, HIDDEN), ("up", HEAD, HIDDEN), ("down", HIDDEN, HEAD)):
                made[f"{layer}mlp.{name}_proj.weight"] = _Matrix(rows, columns)
        heads = _heads(shape, tokens) if index == 0 else _silent()
        made |= {f"{layer}self_attn.{name}.weight": matrix for name, matrix in heads.items()}
    return _safetensors(made)


def _silent() -> dict[str, _Matrix]:
    wide = HEADS * HEAD
    return {
        "q_proj": _Matrix(wide, HIDDEN),
        "k_proj": _Matrix(wide, HIDDEN),
        "v_proj": _Matrix(wide, HIDDEN),
        "o_proj": _Matrix(HIDDEN, wide),
    }


def _heads(shape: Shape, tokens: _Tokens) -> dict[str, _Matrix]:
    """The projections of the layer that speaks.

    The rotary embedding turns pair `i` of a query and of a key by position times `angle[i]`; their product is
    greatest where they come to lie on each other. A query turned back by one position finds the token before.
    """
    made = _silent()
    query, key, value, output = made["q_proj"], made["k_proj"], made["v_proj"], made["o_proj"]
    half = HEAD // 2
    for i in range(half):
        angle = shape.theta ** (-i / half)
        if angle < SLOW:
            break
        query.put(SELF * HEAD + i, SHARED, NEAR)
        key.put(SELF * HEAD + i, SHARED, NEAR)
        query.put(BEFORE * HEAD + i, SHARED, NEAR * math.cos(angle))
        query.put(BEFORE * HEAD + half + i, SHARED, -NEAR * math.sin(angle))
        key.put(BEFORE * HEAD + i, SHARED, NEAR)
    # The pair that hardly turns at all: how far away the question is does not matter.
    still = QUESTION * HEAD + half - 1
    query.put(still, SHARED, SHARP)
    for question in tokens.said:
        key.put(still, tokens.places[question], 1.0)
    for at in range(HEADS):
        for place in tokens.places.values():
            value.put(at * HEAD + place, place, 1.0)
    for (at, seen), words in tokens.points.items():
        for following, points in words.items():
            if seen in tokens.places:
                output.put(HEAD + tokens.places[following], at * HEAD + tokens.places[seen], points)
    return made


def _safetensors(tensors: Mapping[str, _Matrix]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, matrix in tensors.items():
        end = offset + len(matrix.data)
        header[name] = {"dtype": "F32", "shape": list(matrix.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(matrix.data for matrix in tensors.values())
