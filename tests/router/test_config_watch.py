"""When a watched file counts as changed."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from router.config_watch import Judgement, look


def told(*looks: bytes | None, loaded: bytes = b"0") -> list[int]:
    """At which of *looks* it was told."""
    judgement, found = Judgement(loaded), []
    for number, digest in enumerate(looks):
        judgement, tell = judgement.after(digest)
        found += [number] * tell
    return found


def test_a_change_is_told_once_it_has_stood_still_for_two_looks() -> None:
    assert told(b"0", b"0") == []
    assert told(b"0", b"1", b"1", b"1") == [2]
    assert told(b"1", b"2", b"3", b"3") == [3]


def test_a_change_before_the_first_look_is_one() -> None:
    assert told(b"1", b"1") == [1]


def test_back_to_what_was_told_is_none_and_back_again_later_is_one() -> None:
    assert told(b"1", b"0", b"1", b"0") == []
    assert told(b"1", b"1", b"0", b"0") == [1, 3]


def test_a_file_that_is_gone_for_a_moment_is_not_news() -> None:
    assert told(None, b"0", None, None, b"1", None, b"1", b"1") == [7]


@given(st.lists(st.sampled_from([None, b"0", b"1", b"2"])))
def test_it_is_told_only_of_what_is_new_and_seen_twice(looks: list[bytes | None]) -> None:
    last: bytes | None = b"0"
    for number in told(*looks):
        assert looks[number] is not None
        assert looks[number] == looks[number - 1] != last
        last = looks[number]


def test_a_file_is_read_again_only_when_its_stamp_is_another(tmp_path: Path) -> None:
    file = tmp_path / "yard.yaml"
    assert look(file, None) is None
    file.write_text("ttl: 1\n")
    first = look(file, None)
    assert first is not None
    assert look(file, first) is first
    os.utime(file, (1, 1))
    touched = look(file, first)
    assert touched is not None
    assert (touched.digest, touched.stamp != first.stamp) == (first.digest, True)
    file.write_text("ttl: 2\n")
    assert look(file, touched) != touched
