"""The OpenAI SDK for Python, unchanged, against the daemon: endpoints, streams, tools, errors, waiting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon

pytestmark = pytest.mark.process
TEXT = "one two three"


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0, timeout=20) as found:
        yield found


def ask(text: str = "hello") -> list[Any]:
    return [{"role": "user", "content": text}]


def test_models(client: OpenAI) -> None:
    assert "m" in {model.id for model in client.models.list()}
    assert client.models.retrieve("m").id == "m"


def test_a_chat_completion(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="m", messages=ask())
    assert (answer.choices[0].message.content, answer.model) == (TEXT, "m")
    assert answer.usage
    assert answer.usage.total_tokens == 8
    assert answer._request_id


def test_a_streamed_chat_completion(client: OpenAI) -> None:
    stream = client.chat.completions.create(model="m", messages=ask(), stream=True)
    assert "".join(event.choices[0].delta.content or "" for event in stream) == TEXT


def test_a_tool_call(client: OpenAI) -> None:
    tools: list[Any] = [
        {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    ]
    answer = client.chat.completions.create(model="m", messages=ask("tool"), tools=tools)
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert calls[0].to_dict()["function"] == {"name": "weather", "arguments": '{"city": "Oslo"}'}
    stream = client.chat.completions.create(model="m", messages=ask("tool"), tools=tools, stream=True)
    names = [c.function.name for e in stream for c in e.choices[0].delta.tool_calls or () if c.function]
    assert names == ["weather"]


def test_completions_embeddings_and_responses(client: OpenAI) -> None:
    assert client.completions.create(model="m", prompt="hi").choices[0].text == TEXT
    assert len(client.embeddings.create(model="m", input=["a", "b"], encoding_format="float").data) == 2
    assert client.responses.create(model="m", input="hi").output_text == TEXT
    with client.responses.stream(model="m", input="hi") as stream:
        assert stream.get_final_response().output_text == TEXT


def test_errors_arrive_as_the_sdks_own(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="not right") as refused:
        client.chat.completions.create(model="m", messages=ask("refuse"))
    assert refused.value.request_id
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody", messages=ask())
    assert unknown.value.code == "model_not_found"


def test_leaving_a_stream_stops_the_engine(client: OpenAI, daemon: RunningDaemon) -> None:
    stream = client.chat.completions.create(model="m", messages=ask("endless"), stream=True)
    next(iter(stream))
    stream.close()
    stats = f"http://127.0.0.1:{daemon.model('m')['port']}/_stats"
    eventually(lambda: httpx.get(stats).json()["left"] >= 1, what="the engine to notice")
    eventually(lambda: daemon.model("m")["in_flight"] == 0, what="the lease to be returned")


def test_a_time_out_of_the_sdk_is_its_own(client: OpenAI, daemon: RunningDaemon) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(model="m", messages=ask("slow"))
    eventually(lambda: daemon.model("m")["in_flight"] == 0, what="the lease to be returned")


def test_a_stream_outlives_a_cold_start_longer_than_the_read_time_out(
    client: OpenAI, read_timeout: float
) -> None:
    patient = client.with_options(timeout=read_timeout)
    stream = patient.chat.completions.create(model="cold0", messages=ask(), stream=True)
    assert "".join(event.choices[0].delta.content or "" for event in stream) == TEXT


def test_without_a_stream_the_sdk_is_told_when_to_come_again_and_does(
    client: OpenAI, read_timeout: float
) -> None:
    impatient = client.with_options(timeout=read_timeout)
    with pytest.raises(openai.InternalServerError) as told:
        impatient.chat.completions.create(model="cold1", messages=ask())
    assert told.value.status_code == 503
    assert told.value.code == "model_loading"
    assert 1 <= int(told.value.response.headers["retry-after"]) <= 60
    again = impatient.with_options(max_retries=2)
    assert again.chat.completions.create(model="cold1", messages=ask()).choices[0].message.content == TEXT


def test_with_white_space_the_first_try_succeeds(spacious: RunningDaemon, read_timeout: float) -> None:
    with OpenAI(base_url=f"{spacious.url}/v1", api_key="none", max_retries=0, timeout=read_timeout) as client:
        answer = client.chat.completions.create(model="cold0", messages=ask())
    assert answer.choices[0].message.content == TEXT
