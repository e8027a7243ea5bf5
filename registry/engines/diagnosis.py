"""What an engine's last words mean, as far as it is the same for all of them. Pure.

Rules are tried over the whole tail, the most specific cause first; without one, the last line that says
something is the cause: for a Python traceback that is the exception.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from registry.engine import Diagnosis

MAX_CAUSE = 300
"""Characters: an error in an API answer is read by people."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A line that tells the cause; groups of the pattern may be used in `cause` as {1}, {2} …"""

    pattern: re.Pattern[str]
    code: str
    cause: str = "{0}"
    remedy: str = ""


def rule(pattern: str, code: str, *, cause: str = "{0}", remedy: str = "") -> Rule:
    """A `Rule` from the text of its pattern."""
    return Rule(re.compile(pattern), code, cause, remedy)


_SMALLER = "give it a smaller context, free the device, or use a smaller or quantised model"

COMMON: tuple[Rule, ...] = (
    rule(
        r"(?:\[Errno \d+\]|error while attempting to bind|OSError).*[Aa]ddress already in use",
        "port_taken",
        cause="its port was taken by another process",
    ),
    rule(
        r"(?:torch\.)?(?:cuda\.)?OutOfMemoryError: (.+)|CUDA out of memory.*|CUDA error: out of memory",
        "out_of_memory",
        remedy=_SMALLER,
    ),
    rule(
        r"Insufficient Memory.*|\[METAL\] Command buffer execution failed.*"
        r"|kIOGPUCommandBufferCallbackErrorOutOfMemory.*",
        "out_of_memory",
        remedy=_SMALLER,
    ),
    rule(r"MemoryError.*|Cannot allocate memory.*|std::bad_alloc.*|\[malloc\] Unable to allocate.*",
         "out_of_memory", remedy=_SMALLER),
    rule(r"^ModuleNotFoundError: (No module named .+)|^ImportError: (.+)", "engine_broken",
         remedy="install the engine again"),
    rule(r"\berror: (unrecognized arguments: .+|argument .+|the following arguments are required: .+)",
         "bad_arguments", cause="{1}", remedy="correct `args` of this model or of the engine"),
    rule(r"SafetensorError: (.+)|\[load_safetensors\].+|HeaderTooLarge.*|InvalidHeaderDeserialization.*"
         r"|MetadataIncompleteBuffer.*",
         "bad_checkpoint", remedy="download the model again"),
    rule(r"No space left on device.*", "disk_full", remedy="free space in the cache and state folders"),
    rule(r"PermissionError: (.+)", "permission_denied", remedy="give the daemon's user access to it"),
    rule(r"(?:FileNotFoundError|OSError): (.*(?:[Nn]o such file|not found|does not appear to have a file).*)",
         "bad_checkpoint", remedy="download the model again"),
)  # fmt: skip

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
    r"|Process \S+:$|nanobind: |\[W\d+|usage: )"
    r"|\d+%\|.*\||resource_tracker: There appear|leaked (?:shared|semaphore)"
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
    said = _last_words(lines)
    if exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        cause = "killed by the system, most likely for want of memory"
        return Diagnosis(cause, _SMALLER, "out_of_memory")
    return Diagnosis(_short(said) if said else how_it_ended(exit_code), "its log has more", "engine_failed")


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
        if _EXCEPTION.match(line.strip()) and not line.startswith(" "):
            return line.strip()
    # Indented lines are quoted code in a traceback, and an odd style elsewhere.
    is_trace = any(line.startswith("Traceback") for line in lines)
    candidates = lines if is_trace else [line.strip() for line in lines]
    spoken = [line for line in candidates if line.strip() and not _NOISE.search(line)]
    return spoken[-1].strip() if spoken else ""


def _short(text: str) -> str:
    return text if len(text) <= MAX_CAUSE else text[: MAX_CAUSE - 1] + "…"
