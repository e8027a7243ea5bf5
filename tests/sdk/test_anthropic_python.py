"""The Anthropic SDK for Python, unchanged, against the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon

pytestmark = pytest.mark.process
TEXT = "one two three"


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Anthropic]:
    with Anthropic(base_url=daemon.url, api_key="none", max_retries=0, timeout=20) as found:
        yield found


def ask(text: str = "hello", model: str = "m") -> dict[str, Any]:
    return {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": text}]}


def test_a_message(client: Anthropic) -> None:
    answer = client.messages.create(**ask())
    assert answer.content[0].to_dict()["text"] == TEXT
    assert answer.usage.output_tokens == 3


def test_a_streamed_message(client: Anthropic) -> None:
    with client.messages.stream(**ask()) as stream:
        assert "".join(stream.text_stream) == TEXT
        assert stream.get_final_message().stop_reason == "end_turn"


def test_a_tool_call(client: Anthropic) -> None:
    tools: list[Any] = [{"name": "weather", "input_schema": {"type": "object"}}]
    answer = client.messages.create(**ask("tool"), tools=tools)
    assert answer.content[0].to_dict()["input"] == {"city": "Oslo"}
    with client.messages.stream(**ask("tool"), tools=tools) as stream:
        assert stream.get_final_message().content[0].to_dict()["input"] == {"city": "Oslo"}


def test_errors_arrive_as_the_sdks_own(client: Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="not right"):
        client.messages.create(**ask("refuse"))
    with pytest.raises(anthropic.NotFoundError) as unknown:
        client.messages.create(**ask(model="nobody"))
    body: Any = unknown.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")


def test_leaving_a_stream_returns_the_lease(client: Anthropic, daemon: RunningDaemon) -> None:
    stream = client.messages.create(**ask("endless"), stream=True)
    next(iter(stream))
    stream.close()
    eventually(lambda: daemon.model("m")["in_flight"] == 0, what="the lease to be returned")


def test_a_stream_outlives_a_cold_start_longer_than_the_read_time_out(
    client: Anthropic, read_timeout: float
) -> None:
    patient = client.with_options(timeout=read_timeout)
    with patient.messages.stream(**ask(model="cold2")) as stream:
        assert "".join(stream.text_stream) == TEXT


def test_without_a_stream_the_sdk_is_told_when_to_come_again_and_does(
    client: Anthropic, read_timeout: float
) -> None:
    impatient = client.with_options(timeout=read_timeout)
    with pytest.raises(anthropic.InternalServerError) as told:
        impatient.messages.create(**ask(model="cold3"))
    assert told.value.status_code == 503
    again = impatient.with_options(max_retries=2)
    assert again.messages.create(**ask(model="cold3")).content[0].to_dict()["text"] == TEXT
