"""The examination: what a trained network must and what it should answer.

An answer counts if every one of its tokens is the likeliest after the ones before it, the end of
the answer included. That is greedy decoding, measured in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
from torch.nn import functional

from demo.lesson import Classroom
from demo.network import Network

MUST, SHOULD = 1.0, 0.85
ROWS = 64
MOST_SAID = 24


@dataclass(frozen=True, slots=True)
class Case:
    topic: str
    question: str
    ids: list[int]
    reply: list[int]


@dataclass(frozen=True, slots=True)
class Mark:
    """How one group of questions went: exact greedily, and exact when drawn at temperature 1."""

    name: str
    required: float
    questions: int
    greedy: float
    drawn: float


@dataclass(frozen=True, slots=True)
class Marks:
    groups: tuple[Mark, ...]
    mistakes: tuple[tuple[str, str, str], ...]

    @property
    def passed(self) -> bool:
        return all(mark.greedy >= mark.required for mark in self.groups)

    def table(self) -> str:
        lines = ["| questions | number | greedy | at temperature 1 |", "|---|---|---|---|"]
        lines += [
            f"| {mark.name} | {mark.questions} | {mark.greedy:.1%} | {mark.drawn:.1%} |"
            for mark in self.groups
        ]
        return "\n".join(lines)


def examine(network: Network, classroom: Classroom, rng: Random) -> Marks:
    """Marks for the README's questions, for trained ones, and for ones never trained on."""
    questions = classroom.questions
    readme = [("readme", q, a) for q, a in questions.readme.items()]
    unseen = [(topic, q, questions.answers[topic]) for topic, q in questions.held_out]
    seen = [(t, q, questions.answers[t]) for t, q in (questions.ask(rng) for _ in range(1000))]
    rough = [(t, questions.disguise(q, rng), a) for t, q, a in unseen for _ in range(3)]

    plan = (
        ("README, alone", MUST, [_case(classroom, item, []) for item in readme]),
        ("README, after a system message", MUST, [
            _case(classroom, item, _history(classroom, rng, turns=0)) for item in readme * 10
        ]),
        ("README, after other questions", MUST, [
            _case(classroom, item, _history(classroom, rng, turns=rng.randint(1, 6)))
            for item in readme * 10
        ]),
        ("phrased as in training", 0.9, [_case(classroom, item, []) for item in seen]),
        ("held out", SHOULD, [_case(classroom, item, []) for item in unseen]),
        ("held out, badly typed", SHOULD - 0.1, [_case(classroom, item, []) for item in rough]),
        ("held out, in a conversation", SHOULD - 0.05, [
            _case(classroom, item, _history(classroom, rng, turns=rng.randint(1, 4)))
            for item in unseen
        ]),
    )  # fmt: skip
    groups, mistakes = [], []
    for name, required, cases in plan:
        results = grade(network, cases)
        groups.append(
            Mark(
                name=name,
                required=required,
                questions=len(cases),
                greedy=sum(right for right, _ in results) / len(cases),
                drawn=sum(chance for _, chance in results) / len(cases),
            )
        )
        if name == "held out" or required == MUST:
            mistakes += [
                (case.topic, case.question, _said(network, classroom, case))
                for case, (right, _) in zip(cases, results, strict=True)
                if not right
            ]
    return Marks(tuple(groups), tuple(mistakes))


def _case(classroom: Classroom, item: tuple[str, str, str], history: list[int]) -> Case:
    topic, question, answer = item
    return Case(topic, question, history + classroom.prompt(question), classroom.reply(answer))


def _history(classroom: Classroom, rng: Random, *, turns: int) -> list[int]:
    """A system message if there are no turns, else that many finished exchanges."""
    if not turns:
        return classroom.message("system", classroom.questions.system(rng))
    return classroom.dialogue(1000, rng, turns).ids


def _said(network: Network, classroom: Classroom, case: Case) -> str:
    """The first words of what the network really says."""
    ids = list(case.ids)
    with torch.no_grad():
        for _ in range(MOST_SAID):
            hidden = network.hidden(torch.tensor([ids]))
            ids.append(int(network.logits(hidden[0, -1]).argmax()))
            if ids[-1] == classroom.end:
                break
    return classroom.text(ids[len(case.ids) :])


def grade(network: Network, cases: list[Case]) -> list[tuple[bool, float]]:
    """Per case: right if decoded greedily, and the chance of being drawn at temperature 1."""
    results: list[tuple[bool, float]] = []
    for first in range(0, len(cases), ROWS):
        some = cases[first : first + ROWS]
        longest = max(len(case.ids) + len(case.reply) for case in some)
        ids = torch.zeros(len(some), longest, dtype=torch.long)
        for row, case in enumerate(some):
            whole = torch.tensor(case.ids + case.reply)
            ids[row, : len(whole)] = whole
        with torch.no_grad():
            hidden = network.hidden(ids)
            for row, case in enumerate(some):
                at = slice(len(case.ids) - 1, len(case.ids) + len(case.reply) - 1)
                scores = functional.log_softmax(network.logits(hidden[row, at]), dim=-1)
                target = torch.tensor(case.reply)
                chance = scores.gather(1, target[:, None]).sum().exp().item()
                results.append((bool((scores.argmax(-1) == target).all()), chance))
    return results
