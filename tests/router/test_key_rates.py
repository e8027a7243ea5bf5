"""Requests per minute of a key: a bucket that fills steadily."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from router.auth import Auth
from router.heads import parse_request_head
from router.keys import Key, KeyHolder
from router.ports import Refusal

PATH = "/v1/chat/completions"


class Wall:
    def __init__(self) -> None:
        self.value = 1_000_000.0

    def __call__(self) -> float:
        return self.value


def auth(**limits: int | None) -> tuple[Auth, Wall]:
    wall = Wall()
    found = Auth(wall=wall)
    found.publish([Key("k", sha256(b"secret").digest(), **limits)])  # type: ignore[arg-type]
    return found, wall


def ask(found: Auth, path: str = PATH) -> KeyHolder | Refusal:
    head = b"POST %b HTTP/1.1\r\nhost: a\r\nauthorization: Bearer secret\r\n\r\n" % path.encode()
    verdict = found(parse_request_head(head, max_fields=100))
    assert isinstance(verdict, KeyHolder | Refusal)
    return verdict


def test_the_request_after_the_last_is_refused_with_the_time_to_wait() -> None:
    found, wall = auth(requests_per_minute=6)
    for _ in range(6):
        verdict = ask(found)
        assert isinstance(verdict, KeyHolder)
        verdict.leave()
    refusal = ask(found)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code, refusal.retry_after) == (429, "key_rate_limited", 10.0)
    wall.value += 9.9
    assert isinstance(ask(found), Refusal)
    wall.value += 0.2
    assert isinstance(ask(found), KeyHolder)
    assert isinstance(ask(found), Refusal)


def test_lists_and_metrics_are_not_counted() -> None:
    found, _ = auth(requests_per_minute=1)
    assert isinstance(ask(found), KeyHolder)
    for _ in range(5):
        assert isinstance(ask(found, "/v1/models"), KeyHolder)


def test_a_request_that_finds_no_place_costs_nothing_of_the_rate() -> None:
    found, _ = auth(requests_per_minute=2, concurrency=1)
    first = ask(found)
    assert isinstance(first, KeyHolder)
    for _ in range(5):
        busy = ask(found)
        assert isinstance(busy, Refusal)
        assert busy.code == "key_busy"
    first.leave()
    assert isinstance(ask(found), KeyHolder)


def test_a_reload_of_the_keys_forgets_nothing() -> None:
    found, _ = auth(requests_per_minute=1)
    assert isinstance(ask(found), KeyHolder)
    found.publish([Key("k", sha256(b"secret").digest(), requests_per_minute=1)])
    assert isinstance(ask(found), Refusal)


@given(st.integers(1, 100), st.lists(st.floats(-5, 5), max_size=300))
def test_no_minute_sees_twice_the_rate_whatever_the_clock_does(rate: int, steps: list[float]) -> None:
    found, wall = auth(requests_per_minute=rate)
    forward, let_in = 0.0, 0
    for step in steps:
        wall.value += step
        forward += max(step, 0.0)
        let_in += isinstance(ask(found), KeyHolder)
    assert let_in <= rate + forward * rate / 60 + 1


def test_a_head_that_was_let_in_is_not_believed_once_the_keys_have_changed() -> None:
    found, _ = auth()
    head = parse_request_head(
        b"POST %b HTTP/1.1\r\nhost: a\r\nauthorization: Bearer secret\r\n\r\n" % PATH.encode(), max_fields=100
    )
    assert [type(found(head)) for _ in range(3)] == [KeyHolder] * 3
    found.publish([Key("other", sha256(b"another").digest())])
    assert isinstance(found(head), Refusal)
    found.publish([Key("k", sha256(b"secret").digest(), models=frozenset({"m"}))])
    holder = found(head)
    assert isinstance(holder, KeyHolder)
    assert holder.objects_to("n") is not None
