"""Everything that is fuzzed, by name.

A target takes bytes and raises `AssertionError` where the front and a reference disagree, or whatever the
front raises though it must not. None of them knows about a fuzzer: the corpus is replayed without one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.fuzz.connections import check_answer, check_requests
from tests.fuzz.readers import check_body, check_chunks, check_head, check_multipart


@dataclass(frozen=True)
class Target:
    """Something to fuzz."""

    check: Callable[[bytes], None]
    longest: int
    """Bytes of an input."""


TARGETS: Final = {
    "head": Target(check_head, 2048),
    "body": Target(check_body, 4096),
    "multipart": Target(check_multipart, 4096),
    "chunks": Target(check_chunks, 2048),
    "requests": Target(check_requests, 2048),
    "answer": Target(check_answer, 2048),
}
"""What their inputs are made of is in `NAME.dict`, from which a fuzzer finds its way sooner."""
