"""Ring 5: tool calls that real engines generate, each family's in its own writing, through the OpenAI SDK.

The models are scripted (tests/support/scripted_model.py), all else is real: the engine, its tokens, its
parser or our filter, which the registry chooses without a word from an operator.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import psutil
import pytest
from openai.types.chat import ChatCompletionMessageFunctionToolCall

from config.vocabulary import EngineName
from tests.support.gpt_oss_caller import GPT_OSS, GPT_OSS_IN_VLLM, GPT_OSS_IN_VLLM_MLX
from tests.support.real_engines import daemon_in, load, real, sdk
from tests.support.running_daemon import RunningDaemon
from tests.support.tool_callers import (
    GEMMA_3,
    GEMMA_4,
    LLAMA,
    MISTRAL,
    QWEN,
    SAYINGS,
    TOOLS,
    TWO_CALLS,
    Calls,
    Saying,
    ToolCaller,
    write_caller,
)

MLX_LM, VLLM_MLX, VLLM = EngineName.MLX_LM, EngineName.VLLM_MLX, EngineName.VLLM


@dataclass(frozen=True, slots=True)
class Case:
    """A family on an engine, and the parser to be chosen there; None: ours, or the engine's own choice."""

    engine: EngineName
    caller: ToolCaller
    parser: str | None = None
    lost: Mapping[str, str] = field(default_factory=dict)
    """Questions to why this version of the engine gets the answer wrong, whoever asks it."""

    def __repr__(self) -> str:
        return f"{self.engine}-{self.caller.name}"


CALLING = [saying for saying in SAYINGS if saying.calls]
CASES = [
    Case(MLX_LM, QWEN),
    Case(MLX_LM, LLAMA),
    Case(MLX_LM, MISTRAL),
    Case(MLX_LM, GEMMA_3),
    Case(MLX_LM, GEMMA_4),
    Case(MLX_LM, GPT_OSS),
    Case(VLLM_MLX, QWEN, "hermes"),
    Case(VLLM_MLX, LLAMA, "llama3"),
    Case(VLLM_MLX, MISTRAL, "mistral"),
    Case(VLLM_MLX, GEMMA_3),
    Case(
        VLLM_MLX,
        GEMMA_4,
        "gemma4",
        lost={
            TWO_CALLS.question: "its parser reads the first of several blocks, in a stream again and again"
        },
    ),
    Case(
        VLLM_MLX,
        GPT_OSS_IN_VLLM_MLX,
        "harmony",
        lost={saying.question: "it cleans the channels away before its parsers look" for saying in CALLING},
    ),
    Case(VLLM, QWEN, "hermes"),
    Case(VLLM, LLAMA, "llama3_json"),
    Case(VLLM, MISTRAL, "mistral"),
    Case(VLLM, GEMMA_3),
    Case(VLLM, GEMMA_4, "gemma4"),
    Case(VLLM, GPT_OSS_IN_VLLM, "openai"),
]


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[EngineName, RunningDaemon]]:
    """A daemon for each engine, with its models, from when it is first asked for."""
    with ExitStack() as stack:

        class Started(defaultdict[EngineName, RunningDaemon]):
            def __missing__(self, engine: EngineName) -> RunningDaemon:
                folder = tmp_path_factory.mktemp(engine)
                models = {
                    case.caller.name: {
                        "source": str(write_caller(folder, case.caller)),
                        "engine": engine.value,
                    }
                    for case in CASES
                    if case.engine is engine
                }
                daemon = stack.enter_context(daemon_in(folder / "daemon", models))
                return self.setdefault(engine, daemon)

        yield Started()


@dataclass(frozen=True, slots=True)
class Served:
    """A case whose model is loaded."""

    case: Case
    client: openai.OpenAI
    command: Sequence[str]


@pytest.fixture(
    scope="module", params=[pytest.param(case, marks=real(case.engine)) for case in CASES], ids=repr
)
def served(request: pytest.FixtureRequest, daemons: dict[EngineName, RunningDaemon]) -> Iterator[Served]:
    case: Case = request.param
    daemon = daemons[case.engine]
    shown = load(daemon, case.caller.name)
    with sdk(daemon) as client:
        yield Served(case, client, psutil.Process(shown["pid"]).cmdline())
    httpx.post(f"{daemon.url}/api/models/{case.caller.name}/unload", timeout=60).raise_for_status()


@pytest.fixture
def served_or_lost(request: pytest.FixtureRequest, served: Served, saying: Saying) -> None:
    """An answer that the engine is known to get wrong must be wrong: a version that gets it right is told."""
    why = served.case.lost.get(saying.question)
    if why is not None:
        request.applymarker(pytest.mark.xfail(reason=why))


def asking(served: Served, saying: Saying) -> dict[str, Any]:
    messages = [{"role": "user", "content": saying.question}]
    return {
        "model": served.case.caller.name,
        "messages": messages,
        "tools": TOOLS,
        "temperature": 0,
        "max_tokens": 300,
    }


def finish(saying: Saying) -> str:
    return "tool_calls" if saying.calls else "stop"


def test_the_parser_is_chosen_without_a_word_from_the_operator(served: Served) -> None:
    words, parser = list(served.command), served.case.parser
    if parser is None:
        assert "--tool-call-parser" not in words
        assert "--enable-auto-tool-choice" not in words
    else:
        assert words[words.index("--tool-call-parser") + 1] == parser
        assert "--enable-auto-tool-choice" in words


@pytest.mark.parametrize("saying", SAYINGS, ids=lambda saying: saying.question)
@pytest.mark.usefixtures("served_or_lost")
def test_an_answer_has_its_text_and_its_calls(served: Served, saying: Saying) -> None:
    expected = served.case.caller.as_said(saying)
    answer = served.client.chat.completions.create(**asking(served, saying))
    choice = answer.choices[0]
    calls = choice.message.tool_calls or []
    functions = [call.function for call in calls if isinstance(call, ChatCompletionMessageFunctionToolCall)]
    found = tuple((function.name, json.loads(function.arguments)) for function in functions)
    assert ((choice.message.content or "").strip(), found) == (expected.text, expected.calls)
    assert ((choice.message.model_extra or {}).get("reasoning") or "") == expected.thought
    assert len({call.id for call in calls}) == len(calls)
    assert choice.finish_reason == finish(expected)


@pytest.mark.parametrize("saying", SAYINGS, ids=lambda saying: saying.question)
@pytest.mark.usefixtures("served_or_lost")
def test_a_stream_has_its_text_and_its_calls(served: Served, saying: Saying) -> None:
    expected = served.case.caller.as_said(saying)
    text, thought, reasons = "", "", []
    pieces: dict[int, list[str]] = {}
    ids: dict[int, str] = {}
    for chunk in served.client.chat.completions.create(**asking(served, saying), stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            thought += (choice.delta.model_extra or {}).get("reasoning") or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
            for call in choice.delta.tool_calls or ():
                assert call.function is not None
                name, arguments = pieces.setdefault(call.index, ["", ""])
                ids.setdefault(call.index, call.id or "")
                pieces[call.index] = [
                    name + (call.function.name or ""),
                    arguments + (call.function.arguments or ""),
                ]
    found: Calls = tuple((name, json.loads(arguments)) for _, (name, arguments) in sorted(pieces.items()))
    assert (text.strip(), thought, found) == (expected.text, expected.thought, expected.calls)
    assert list(pieces) == list(range(len(pieces)))
    assert len(set(ids.values()) - {""}) == len(pieces)
    assert reasons == [finish(expected)]
