"""What an engine is doing, from its own words: for people who wait. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

NOTE_CHARS = 80
LOOK_BACK = 40
"""Lines: further back is no news."""

_PREFIX = re.compile(
    r"^(?:\([^)]{1,60}\)\s*)?"  # (EngineCore_DP0 pid=123)
    r"(?:\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.,\d]*\s*(?:[-|]\s*)?)?"
    r"(?:(?:DEBUG|INFO|WARNING|ERROR)\b[:\s|-]*)?"
    r"(?:\d\d-\d\d \d\d:\d\d:\d\d\s*)?"
    r"(?:\[[^\]]{1,80}\]\s*)?[-:\s]*"
)
_PERCENT = re.compile(r"(?<!\d)(\d{1,3})(?:\.\d+)?\s?%")
_OF = re.compile(r"(?<![\d/.])(\d{1,6})/(\d{1,6})(?![\d/.])")
_WORK = re.compile(
    r"\b(?:load|download|fetch|compil|captur|warm|quanti[sz]|profil|initiali[sz]|allocat|start)\w*",
    re.IGNORECASE,
)
_TRACE = re.compile(r'^(?:Traceback |\s*File "|\s{4})')  # a traceback quotes code that "loads"
_REQUEST = re.compile(r"\b(?:GET|POST|HEAD) /|HTTP/1")


def plain(line: str) -> str:
    """A log line without time, level and origin."""
    return _PREFIX.sub("", line, count=1).strip()


def own_words(tail: Sequence[str]) -> tuple[str, ...]:
    """The lines that are not about requests: our own probes in an access log are no sign of life."""
    return tuple(line for line in tail if not _REQUEST.search(line))


def milestone(tail: Sequence[str]) -> str:
    """The newest line that tells of progress, shortened: `Loading shards 42%`; "" when none does."""
    for line in reversed(own_words(tail[-LOOK_BACK:])):
        if _TRACE.match(line):
            continue
        text = plain(line)
        percent = _PERCENT.search(text)
        if percent is not None and int(percent[1]) <= 100:
            what = text[: percent.start()].strip(" :|[-\t")
            return _fit(what, f" {percent[1]}%") if what else f"{percent[1]}%"
        if _WORK.search(text):
            count = _OF.search(text)
            if count is not None and int(count[1]) <= int(count[2]):
                return _fit(text[: count.start()].strip(" :|[-\t"), f" {count[0]}")
            return _fit(text, "")
    return ""


def _fit(text: str, end: str) -> str:
    room = NOTE_CHARS - len(end)
    return (text if len(text) <= room else text[: room - 1] + "…") + end


def note(phase: str, tail: Sequence[str]) -> str:
    """One line of at most 80 characters: what the engine says it does, else what we wait for."""
    return milestone(tail) or _fit(phase, "")
