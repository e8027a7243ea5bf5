"""What an engine's last words mean. Pure.

Rules are tried over the whole tail, the most specific cause first; without one, the way it ended may tell;
else the last line that says something is shown (for a Python traceback the exception), and the diagnosis says
that the failure is not a known one.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from registry.engine import Diagnosis
from registry.engines.causes import COMMON, OTHER_CPU, SMALLER, Rule

MAX_CAUSE = 300
"""Characters: an error in an API answer is read by people."""
UNKNOWN = "modelyard does not know this failure; the model's log has more"
CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE})
"""Signals that a program gives itself by a fault in native code."""

_CONSEQUENCE = "See root cause above"
"""vLLM's last exception, which only says that there was another one."""
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PREFIX = re.compile(
    r"^(?:\((?:APIServer|EngineCore|Worker|DPCoordinator)[^)]*\)\s*)+"
    r"|^(?:INFO|WARNING|ERROR|DEBUG|CRITICAL)\s+\d\d-\d\d \d\d:\d\d:\d\d\s+\[[^\]]*\]\s*"
    r"|^\d{4}-\d\d-\d\d[ T][\d:,.]+\s*-?\s*(?:INFO|WARNING|ERROR|DEBUG|CRITICAL)?\s*-?\s*"
    r"|^(?:INFO|WARNING|ERROR|DEBUG|CRITICAL):\s+"
)
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning)\b(?:: .*)?$"
)
_NOISE = re.compile(
    r"^(?:\s|File \"|Traceback \(most recent|During handling|The above exception|\^+$|~+|\d+%\|"
    r"|Process \S+:$|nanobind: |\[W\d+|usage: |Extension modules: |Current thread 0x|Fatal Python error: )"
    r"|\d+%\|.*\||resource_tracker: There appear|leaked (?:shared|semaphore)"
    r"|\"(?:GET|POST|HEAD) /\S* HTTP/1"
)


def clean(line: str) -> str:
    """*line* without colours, and without what process and logger put in front of it."""
    text = _ANSI.sub("", line.rpartition("\r")[2]).rstrip()
    for _ in range(4):
        shorter = _PREFIX.sub("", text)
        if shorter == text:
            break
        text = shorter
    return text


def diagnose(tail: Sequence[str], exit_code: int | None, rules: tuple[Rule, ...] = ()) -> Diagnosis:
    """The cause in the last lines of an engine's log; *rules* go before `COMMON`. Never raises."""
    lines = [clean(line) for line in tail]
    for known in (*rules, *COMMON):
        for line in reversed(lines):
            match = known.pattern.search(line)
            if match:
                return Diagnosis(_short(_fill(known.cause, match)), known.remedy, known.code)
    number = -exit_code if exit_code is not None and exit_code < 0 else (exit_code or 0) - 128
    if number == signal.SIGKILL:
        cause = "killed by the system, most likely for want of memory"
        return Diagnosis(cause, SMALLER, "out_of_memory")
    if number == signal.SIGILL:
        return Diagnosis("it used an instruction that this CPU does not have", OTHER_CPU, "unsupported_cpu")
    said = _last_words(lines)
    if number in CRASHES:
        how = how_it_ended(-number)
        return Diagnosis(_short(f"{how}: {said}" if said else how), UNKNOWN, "engine_crashed")
    return Diagnosis(_short(said) if said else how_it_ended(exit_code), UNKNOWN, "engine_failed")


def how_it_ended(exit_code: int | None) -> str:
    """In words, for an engine that said nothing."""
    if exit_code is None:
        return "it ended without a word"
    if exit_code < 0:
        try:
            name = signal.Signals(-exit_code).name
        except ValueError:
            name = f"signal {-exit_code}"
        return f"it was ended by {name}"
    return f"it exited with status {exit_code} and said nothing"


def _fill(template: str, match: re.Match[str]) -> str:
    text = template.replace("{0}", match[0])
    for number, group in enumerate(match.groups(), 1):
        text = text.replace(f"{{{number}}}", group or "")
    return text.strip()


def _last_words(lines: list[str]) -> str:
    for line in reversed(lines):
        if _EXCEPTION.match(line.strip()) and not line.startswith(" ") and _CONSEQUENCE not in line:
            return line.strip()
    # Indented lines are quoted code in a traceback, and an odd style elsewhere.
    is_trace = any(line.startswith("Traceback") for line in lines)
    candidates = lines if is_trace else [line.strip() for line in lines]
    spoken = [line for line in candidates if line.strip() and not _NOISE.search(line)]
    return spoken[-1].strip() if spoken else ""


def _short(text: str) -> str:
    return text if len(text) <= MAX_CAUSE else text[: MAX_CAUSE - 1] + "…"
