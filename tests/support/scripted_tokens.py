"""The vocabulary of a scripted model, and what follows what in its answers (see `scripted_model`)."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

HEADS: Final = 4
SELF, BEFORE, EARLIER, QUESTION = range(HEADS)
"""What the heads look at: the token itself, the one before it, the one before that, and the question."""
MOST_PLACES: Final = 127
"""Tokens that the answers may have in all."""
MARGIN: Final = 3
"""By how many points the right token leads, at least."""
ROUNDS: Final = 60
"""Of the perceptron: it needs a dozen where there is a table at all."""
SPLITS: Final = 40
"""Ways to split the texts that are tried: in most of them no place looks like another to all heads."""
ASKED: Final = "?"
"""In place of the question in `Voice.prompt_end`."""

Encode = Callable[[Sequence[str]], list[list[tuple[int, bytes]]]]


@dataclass(frozen=True, slots=True)
class Voice:
    """How a family talks: its special tokens and its chat template."""

    specials: Mapping[str, bool]
    """Tokens of their own to whether decoding leaves them out when special ones are skipped."""
    ends: tuple[str, ...]
    """Tokens that end an answer; a text that ends with none of them gets the first."""
    prompt_end: tuple[str, str, str]
    """The last tokens of a prompt: of *specials*, single characters, or `ASKED` for the question."""
    template: str
    bos: str | None = None
    encode: Encode | None = None
    """For an engine with an encoding of its own, which reads no `tokenizer.json`: the numbers of the tokens
    of texts, and their bytes."""
    vocabulary_size: int = 0
    """At least."""


def certain_tokens(voice: Voice, script: Mapping[str, str]) -> Tokens:
    """Tokens with which each question of *script* is answered with its text.

    Raises ValueError where some answer would be lost however it is split: where all heads see the same at two
    places and something else follows.
    """
    for seed in range(SPLITS):
        tokens = Tokens(voice, script, random.Random(seed))
        if len(tokens.places) <= MOST_PLACES and tokens.learn():
            return tokens
    raise ValueError(f"no split tells all places of these texts apart: {', '.join(script)}")


def _byte_letters() -> list[str]:
    """The letter that stands for each byte in a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


_LETTERS: Final = _byte_letters()


class Tokens:
    """The vocabulary, and what follows what."""

    def __init__(self, voice: Voice, script: Mapping[str, str], choice: random.Random) -> None:
        self._choice = choice
        self._voice = voice
        texts = [text if text.endswith(voice.ends) else text + voice.ends[0] for text in script.values()]
        self.specials = dict(voice.specials)
        """As in `Voice`, and the questions where they are tokens."""
        self.ids: dict[str, int] = {}
        self.asked: dict[str, str] = {}
        """The token by which each question is known."""
        if voice.encode is None:
            said = self._cut(list(script), texts)
        else:
            said = self._encoded(voice.encode, list(script), texts)
        self.said = dict(zip(script, said, strict=True))
        self.size = max(-(-(max(self.ids.values()) + 1) // 64) * 64, voice.vocabulary_size)
        begin = self._begin(next(iter(self.asked.values())))
        places = dict.fromkeys((*begin, *self.asked.values(), *(one for pieces in said for one in pieces)))
        self.places = {token: place for place, token in enumerate(places)}
        """The tokens of answers and questions, each with a number of its own from 0."""
        self.points: defaultdict[tuple[int, str], Counter[str]] = defaultdict(Counter)
        """By a head and the token that it sees: what it says for each next one."""

    def _cut(self, questions: list[str], texts: list[str]) -> list[list[str]]:
        """*texts* in tokens, in a vocabulary of bytes, of pieces, and of *questions*."""
        voice = self._voice
        own = [token for token in voice.specials if token != voice.prompt_end[-1]]
        said = [self._pieces(text, own) for text in texts]
        pieces = [piece for one in said for piece in one if piece not in voice.specials]
        self.specials |= dict.fromkeys(questions, False)
        self.asked = dict(zip(questions, questions, strict=True))
        self.ids = {
            token: number for number, token in enumerate(dict.fromkeys([*_LETTERS, *pieces, *self.specials]))
        }
        return said

    def _encoded(self, encode: Encode, questions: list[str], texts: list[str]) -> list[list[str]]:
        """*texts* in the tokens of an encoding that is given."""
        rows = encode(["".join(self.specials), *questions, *texts])
        named = [[(self._name(text), number) for number, text in row] for row in rows]
        self.ids = {name: number for row in named for name, number in row}
        asked, said = named[1 : 1 + len(questions)], named[1 + len(questions) :]
        for question, row in zip(questions, asked, strict=True):
            others = {name for other in (*asked, *said) if other is not row for name, _ in other}
            # The higher its number the rarer it is: nothing else in a prompt has it.
            self.asked[question] = max({name for name, _ in row} - others, key=self.ids.__getitem__)
        return [[name for name, _ in row] for row in said]

    def _name(self, text: bytes) -> str:
        plain = text.decode(errors="replace")
        return plain if plain in self.specials else "".join(_LETTERS[byte] for byte in text)

    def _begin(self, asked: str) -> list[str]:
        """The end of a prompt."""
        return [
            asked if one == ASKED else one if one in self.specials else _LETTERS[ord(one)]
            for one in self._voice.prompt_end
        ]

    def learn(self) -> bool:
        """Find `points` with which every answer is said to its end; False where there seem to be none."""
        steps = []
        for question, pieces in self.said.items():
            asked = self.asked[question]
            seen = [*self._begin(asked), *pieces]
            for earlier, before, last, following in zip(seen, seen[1:], seen[2:], pieces, strict=False):
                steps.append((tuple(enumerate((last, before, earlier, asked))), following))
        for _ in range(ROUNDS):
            wrong = 0
            for context, right in steps:
                score = Counter({right: 0})
                for one in context:
                    score.update(self.points[one])
                lead = score.pop(right)
                rival = max(score, key=score.__getitem__, default=right)
                if lead - max(score[rival], 0) < MARGIN:
                    wrong += 1
                    for one in context:
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
                "vocab": {token: self.ids[token] for token in self.ids if token not in self.asked}
                if self._voice.encode is None
                else self.ids,
                "merges": [],
            },
        }
