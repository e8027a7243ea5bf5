"""Trains one of the demo models and writes it in Hugging Face layout, if it passes its examination.

    python -m demo.train --model yard-demo --out demo/models/yard-demo

The same command on the same machine writes the same bytes; the examination stands between a
training run that went wrong and the folder that newcomers meet first.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from demo.checkpoint import write_checkpoint
from demo.examine import Marks, examine
from demo.lesson import Classroom, Dialogue, learn_tokenizer
from demo.network import Network, Shape
from demo.paraphrase import Questions


@dataclass(frozen=True, slots=True)
class Plan:
    shape: Shape
    steps: int
    seed: int


PLANS = {
    "yard-demo": Plan(Shape("qwen3", 2048, 192, 512, 4, 4, 2, 64), steps=650, seed=11),
    "yard-foreman": Plan(Shape("llama", 1024, 96, 288, 4, 4, 2, 32), steps=700, seed=12),
}

# (rows, tokens, turns). Most steps see only the openings of answers (turns 0): which answer it is gets
# decided in its first words, the rest is soon known by heart, and short rows are many rows. Then there
# are single questions, conversations, and now and then a long one, so that no position is a stranger.
BATCHES = ((256, 12, 0),) * 9 + ((96, 112, 1),) * 3 + ((32, 320, 6),) * 4 + ((8, 1200, 40),)

PARTS = 4
WARM_UP = 40
MATRIX_RATE, VECTOR_RATE = 0.02, 0.004


def lesson(classroom: Classroom, rng: Random) -> list[Dialogue]:
    """The dialogues of one step, each with something to say."""
    rows, length, turns = rng.choice(BATCHES)
    batch: list[Dialogue] = []
    while len(batch) < rows:
        dialogue = classroom.dialogue(length, rng, turns) if turns else classroom.opening(length, rng)
        if any(dialogue.said):
            batch.append(dialogue)
    return batch


def tensors(batch: list[Dialogue]) -> tuple[Tensor, Tensor]:
    """Inputs, and targets with -100 wherever the model is not the one who speaks."""
    longest = max(len(dialogue.ids) for dialogue in batch)
    inputs = torch.zeros(len(batch), longest, dtype=torch.long)
    targets = torch.full((len(batch), longest), -100)
    for row, dialogue in enumerate(batch):
        ids = torch.tensor(dialogue.ids)
        inputs[row, : len(ids)] = ids
        heard = ~torch.tensor(dialogue.said)
        targets[row, : len(ids) - 1] = ids.masked_fill(heard, -100)[1:]
    return inputs, targets


def loss_of(network: Network, inputs: Tensor, targets: Tensor) -> Tensor:
    """Summed loss over the tokens of the answers; only their positions reach the output layer."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = network.hidden(inputs)
        spoken = targets != -100
        scores = network.logits(hidden[spoken]).float()
        return functional.cross_entropy(scores, targets[spoken], reduction="sum")


def learn(network: Network, dialogues: list[Dialogue]) -> float:
    """Adds the gradients of one step to the weights, and returns the mean loss.

    Rows of like length go together: padding would be half of all that is computed.
    """
    dialogues = sorted(dialogues, key=lambda dialogue: len(dialogue.ids))
    spoken = sum(sum(dialogue.said) for dialogue in dialogues)
    size = -(-len(dialogues) // PARTS)
    total = 0.0
    for first in range(0, len(dialogues), size):
        loss = loss_of(network, *tensors(dialogues[first : first + size])) / spoken
        loss.backward()
        total += loss.item()
    return total


def optimizers(network: Network) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms."""
    weights = network.weights.items()
    matrices = [w for name, w in weights if w.dim() == 2 and "embed" not in name]
    others = [w for name, w in weights if w.dim() != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.05, momentum=0.95),
        torch.optim.AdamW(others, lr=VECTOR_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(step: int, steps: int) -> float:
    """Share of the learning rate: a short warm-up, a plateau, and a straight way down to nothing."""
    return min(1.0, (step + 1) / WARM_UP, (steps - step) / (0.6 * steps))


def train(network: Network, classroom: Classroom, plan: Plan, steps: int) -> None:
    rng = Random(plan.seed)
    engines = optimizers(network)
    started, mean = time.monotonic(), math.nan
    for step in range(steps):
        loss = learn(network, lesson(classroom, rng))
        torch.nn.utils.clip_grad_norm_(network.weights.values(), 1.0)
        for engine in engines:
            for group in engine.param_groups:
                group.setdefault("full_rate", group["lr"])
                group["lr"] = group["full_rate"] * rate(step, steps)
            engine.step()
            engine.zero_grad(set_to_none=True)
        mean = loss if math.isnan(mean) else 0.97 * mean + 0.03 * loss
        if step % 50 == 49:
            seconds = time.monotonic() - started
            print(f"step {step + 1:5d}/{steps}  loss {mean:.4f}  {seconds:5.0f} s", flush=True)


def round_weights(network: Network) -> None:
    """What the file can hold: the examination is taken with the rounded weights."""
    with torch.no_grad():
        for weight in network.weights.values():
            weight.copy_(weight.to(torch.bfloat16).float())


def report(marks: Marks) -> None:
    print(marks.table())
    for topic, question, reply in marks.mistakes:
        print(f"  missed [{topic}] {question!r}: {reply!r}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(PLANS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, help="another number of steps, to try things out")
    parser.add_argument("--threads", type=int, default=2, help="other numbers, other roundings")
    arguments = parser.parse_args()
    plan = PLANS[arguments.model]
    steps = arguments.steps or plan.steps

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(plan.seed)
    torch.use_deterministic_algorithms(True)
    questions = Questions(arguments.model)
    tokenizer = learn_tokenizer(questions, plan.shape.vocab_size, Random(plan.seed))
    classroom = Classroom(questions, tokenizer)
    network = Network(plan.shape)
    parameters = sum(weight.numel() for weight in network.weights.values())
    print(f"{arguments.model}: {parameters:,} parameters, {steps} steps", flush=True)

    started = time.monotonic()
    train(network, classroom, plan, steps)
    minutes = (time.monotonic() - started) / 60
    round_weights(network)
    marks = examine(network, classroom, Random(plan.seed + 1))
    report(marks)
    print(f"trained in {minutes:.1f} minutes")
    if not marks.passed:
        print("not written: the examination was not passed", file=sys.stderr)
        return 1
    write_checkpoint(arguments.out, arguments.model, network, tokenizer, marks)
    print(f"written to {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
