"""What can be wrong with a configuration: said with file, line and key, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    where: str
    """File, or the environment variable, that it was read from."""
    what: str
    """What is wrong and what to do."""
    line: int | None = None
    """1-based; None when no line can be named."""
    key: str = ""
    """Dotted path of the key, `models.qwen.ttl`; "" for the whole file."""

    def __str__(self) -> str:
        """`modelyard.yaml:12: models.qwen.ttl: what`."""
        place = self.where if self.line is None else f"{self.where}:{self.line}"
        return f"{place}: {self.key}: {self.what}" if self.key else f"{place}: {self.what}"


class ConfigError(Exception):
    """The configuration cannot be used. The message has one line per problem, in the file's order."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
