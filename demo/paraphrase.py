"""Questions without end: templates become phrases, and phrases become what people really type.

Everything random comes from the generator that is passed in, so that a seed fixes the whole
training set.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml

HERE = Path(__file__).parent
ELSEWHERE = "elsewhere"
"""The topic of everything that is off topic."""

ELSEWHERE_SHARE = 0.33
"""High, because the world outside is larger than the sixty topics: too little, and every unknown
word is taken for a question about modelyard."""

ENDINGS = ("?",) * 10 + ("",) * 7 + (".", "!", " ?", "??", "...", "?!")


FIRST = ("b", "br", "c", "d", "f", "g", "gr", "h", "l", "m", "n", "p", "pl", "r", "s", "st", "t", "v", "")
LAST = ("", "", "l", "m", "n", "nd", "r", "s", "st", "t", "ck", "ng")
SYLLABLES = tuple(first + vowel + last for first in FIRST for vowel in "aeiou" for last in LAST)


class Grammar:
    """Expands templates: `(a|b)` is a choice, `{word}` a word of the list of that name."""

    def __init__(self, words: Mapping[str, str | Sequence[str]]) -> None:
        self._literal = {n: value for n, value in words.items() if not isinstance(value, str)}
        self._templates = {
            # A flat list is cut at its bars beforehand: reading a long one each time is slow.
            name: (value,) if "(" in value else tuple(value.split("|"))
            for name, value in words.items()
            if isinstance(value, str)
        }

    def expand(self, template: str, rng: Random) -> str:
        """One phrase of the template, spaces tidied."""
        text, _ = self._choice(template, 0, rng)
        return " ".join(text.split()).replace(" ,", ",").replace(" .", ".")

    def _choice(self, template: str, at: int, rng: Random) -> tuple[str, int]:
        """Reads alternatives up to a closing parenthesis or the end; returns one, and where it ended.

        All alternatives are expanded and one is kept: simpler than two passes, and fast enough.
        """
        options, current = [], ""
        while at < len(template) and template[at] != ")":
            match template[at]:
                case "(":
                    inner, at = self._choice(template, at + 1, rng)
                    current += inner
                case "|":
                    options.append(current)
                    current = ""
                case "{":
                    end = template.index("}", at)
                    current += self._word(template[at + 1 : end], rng)
                    at = end
                case letter:
                    current += letter
            at += 1
        options.append(current)
        return rng.choice(options), at

    def _word(self, name: str, rng: Random) -> str:
        if name == "n":
            return str(rng.randrange(10 ** rng.randint(1, 4)))
        if name == "junk":
            return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(4, 9)))
        if name == "pseudo":
            return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 4)))
        if name in self._literal:
            return rng.choice(self._literal[name])
        return self._choice(rng.choice(self._templates[name]), 0, rng)[0]


class Questions:
    """Both data files, and the way from them to (topic, question, answer)."""

    def __init__(self, model: str) -> None:
        yard = yaml.safe_load((HERE / "questions.yaml").read_text("utf-8"))
        world = yaml.safe_load((HERE / "elsewhere.yaml").read_text("utf-8"))
        topics: dict[str, Any] = {**yard["topics"], ELSEWHERE: world}
        self.answers = {name: topic["answers"][model].strip() for name, topic in topics.items()}
        self.readme = {q: answers[model].strip() for q, answers in yard["readme"].items()}
        self.held_out = [(n, q) for n, t in topics.items() for q in t["held_out"].splitlines()]
        self.systems = world["system"].splitlines()
        self._asks = {name: topic["ask"].splitlines() for name, topic in topics.items()}
        self._names = [name for name in topics if name != ELSEWHERE]
        self._yard = Grammar(yard["words"])
        self._world = Grammar(world["words"])
        self._manners = Grammar(yard["manners"])
        self._never = {_bare(question) for _, question in self.held_out}

    def ask(self, rng: Random) -> tuple[str, str]:
        """A topic and a question to train on; never one of the held-out questions."""
        while True:
            if rng.random() < ELSEWHERE_SHARE:
                topic, grammar = ELSEWHERE, self._world
            else:
                topic, grammar = rng.choice(self._names), self._yard
            asks = self._asks[topic]
            # The first template holds the plainest words for a topic: they are used most.
            template = asks[0] if rng.random() < 0.12 else rng.choice(asks)
            phrase = grammar.expand(template, rng)
            if _bare(phrase) not in self._never:
                return topic, self.disguise(phrase, rng)

    def disguise(self, phrase: str, rng: Random) -> str:
        """The phrase as somebody might type it: manners, case, punctuation, slips of the finger."""
        if rng.random() < 0.2:
            phrase = f"{self._manners.expand('{before}', rng)} {phrase}"
        if rng.random() < 0.12:
            phrase = f"{phrase} {self._manners.expand('{after}', rng)}".replace(" ,", ",")
        draw = rng.random()
        if draw < 0.42:
            phrase = phrase[:1].upper() + phrase[1:]
        elif draw < 0.64:
            phrase = phrase.lower()
        elif draw < 0.66:
            phrase = phrase.upper()
        elif draw < 0.68:
            phrase = phrase.title()
        if rng.random() < 0.15:
            phrase = slip(phrase, rng)
        return phrase.rstrip("?!. ") + rng.choice(ENDINGS) or "?"

    def system(self, rng: Random) -> str:
        """A system message; now and then one long enough to push the question far back."""
        count = rng.choice((1, 1, 1, 1, 2, 3, 6))
        return " ".join(self._world.expand(rng.choice(self.systems), rng) for _ in range(count))


def _bare(question: str) -> str:
    return "".join(letter for letter in question.lower() if letter.isalnum())


def slip(text: str, rng: Random) -> str:
    """One or two typing errors, inside words of four letters or more."""
    words = text.split(" ")
    for _ in range(1 + (len(words) > 5 and rng.random() < 0.4)):
        long = [i for i, word in enumerate(words) if len(word) > 3]
        if not long:
            break
        chosen = rng.choice(long)
        word, at = words[chosen], rng.randrange(1, len(words[chosen]) - 1)
        match rng.randrange(4):
            case 0:
                word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
            case 1:
                word = word[:at] + word[at + 1 :]
            case 2:
                word = word[:at] + word[at] + word[at:]
            case _:
                word = word[:at] + rng.choice(string.ascii_lowercase) + word[at + 1 :]
        words[chosen] = word
    return " ".join(words)
