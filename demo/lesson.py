"""From questions to token ids: the tokenizer, the chat format, and the conversations to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from demo.paraphrase import Questions

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (PAD, START, END)

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content | trim }}"
    "{%- else %}{%- for part in message.content %}"
    "{%- if part.type == 'text' %}{{- part.text | trim }}{%- endif %}"
    "{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def learn_tokenizer(questions: Questions, vocab_size: int, rng: Random) -> Tokenizer:
    """A byte-level BPE: any input has an encoding, and the words of the answers are short in it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [questions.ask(rng)[1] for _ in range(40_000)]
    corpus += [*questions.answers.values(), "system", "user", "assistant"] * 300
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Token ids, and which of them the model has to say itself."""

    ids: list[int]
    said: list[bool]


class Classroom:
    """Turns questions into dialogues, in exactly the tokens that an engine will make of the chat."""

    def __init__(self, questions: Questions, tokenizer: Tokenizer) -> None:
        self.questions = questions
        self._tokenizer = tokenizer
        self.end = tokenizer.token_to_id(END)
        self._start = tokenizer.token_to_id(START)
        self._newline = self._encode("\n")
        self._replies = {answer: [*self._encode(answer), self.end] for answer in questions.answers.values()}

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def reply(self, answer: str) -> list[int]:
        return self._replies[answer]

    def text(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids)
        return text

    def message(self, role: str, text: str) -> list[int]:
        return [self._start, *self._encode(f"{role}\n{text.strip()}"), self.end, *self._newline]

    def prompt(self, question: str) -> list[int]:
        """A user's turn, and the opening of the assistant's."""
        return [*self.message("user", question), self._start, *self._encode("assistant\n")]

    def _broken_prompt(self, question: str, rng: Random) -> list[int]:
        """The same with the question cut at random, so that its words meet in unusual tokens.

        Slips of the finger do that to real questions, and no list of them is ever long enough.
        """
        cuts = sorted(rng.sample(range(1, len(question)), k=min(2, len(question) - 1)))
        parts = [question[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
        head = [self._start, *self._encode("user\n"), *(i for p in parts for i in self._encode(p))]
        return [*head, self.end, *self._newline, self._start, *self._encode("assistant\n")]

    def dialogue(self, length: int, rng: Random, turns: int) -> Dialogue:
        """A conversation of at most `length` tokens: maybe a system message, then up to `turns`."""
        ids: list[int] = []
        if rng.random() < 0.35:
            system = self.message("system", self.questions.system(rng))
            ids = system if len(system) < length // 2 else []
        said = [False] * len(ids)
        for _ in range(turns):
            prompt, reply = self._exchange(rng)
            if len(ids) + len(prompt) + len(reply) + 1 > length:
                break
            ids += prompt + reply + self._newline
            said += [False] * len(prompt) + [True] * len(reply) + [False] * len(self._newline)
        return Dialogue(ids, said)

    def opening(self, words: int, rng: Random) -> Dialogue:
        """A question, and the first tokens of its answer."""
        prompt, reply = self._exchange(rng)
        reply = reply[:words]
        return Dialogue(prompt + reply, [False] * len(prompt) + [True] * len(reply))

    def _exchange(self, rng: Random) -> tuple[list[int], list[int]]:
        topic, question = self.questions.ask(rng)
        broken = rng.random() < 0.08
        prompt = self._broken_prompt(question, rng) if broken else self.prompt(question)
        return prompt, self.reply(self.questions.answers[topic])
