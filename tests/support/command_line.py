"""`modelyard` as people run it: a process of its own, against a real daemon, in a pipe or at a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.pseudo_terminal import PseudoTerminal
from tests.support.running_daemon import ROOT, RunningDaemon

SCHEMA: dict[str, Any] = json.loads((ROOT / "docs" / "reference" / "cli.schema.json").read_text())

PROGRAM = [sys.executable, "-m", "modelyard"]


@dataclass
class CommandLine:
    """Runs commands with a home of its own and, unless it is told otherwise, *daemon* as the daemon."""

    home: Path
    daemon: RunningDaemon | None = None
    env: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Of every command: nothing of the person who runs the tests."""
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "LC_ALL", "TMPDIR")}
        where = {} if self.daemon is None else {"MODELYARD_URL": self.daemon.url}
        quiet = {"MODELYARD_ENGINES": str(self.home / "engines")}
        return {**kept, "HOME": str(self.home), "PYTHONPATH": str(ROOT), **quiet, **where, **self.env}

    def run(self, *words: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """`modelyard *words*` to its end, its output in pipes."""
        return subprocess.run(
            [*PROGRAM, *words],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.home,
            env={**self.environment, **env},
            timeout=50,
            check=False,
        )

    def lines(self, *words: str, stdin: str = "", status: int = 0) -> list[str]:
        """What it printed on standard output; it must end with *status*."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == status, done.stderr
        return done.stdout.splitlines()

    def refused(self, *words: str, status: int = 1, **env: str) -> str:
        """The one line on standard error of a command that must fail with *status* and print nothing else."""
        done = self.run(*words, **env)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert done.stderr.startswith("error: "), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    def json(self, command: str, *words: str, status: int = 0, stdin: str = "") -> Any:
        """What `modelyard *command* *words* --json` printed, checked against its published schema."""
        done = self.run(*command.split(), *words, "--json", stdin=stdin)
        assert done.returncode == status, done.stderr
        found = json.loads(done.stdout)
        check_output(command, found)
        return found

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command that goes on, its output in a pipe and Ctrl-C possible."""
        return subprocess.Popen(
            [*PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.home,
            env=self.environment,
        )

    def terminal(self, *words: str, columns: int = 120) -> PseudoTerminal:
        """The same at a terminal."""
        return PseudoTerminal([*PROGRAM, *words], cwd=str(self.home), env=self.environment, columns=columns)


def check_output(command: str, found: Any) -> None:
    """Fails unless *found* is what the published schema says that *command* prints, and nothing beyond."""
    from jsonschema import Draft202012Validator  # where it is used: rings 1 to 3 start without it

    Draft202012Validator.check_schema(SCHEMA)
    judge = Draft202012Validator({**SCHEMA["properties"][command], "$defs": _closed(SCHEMA["$defs"])})
    problems = [f"{error.json_path}: {error.message[:300]}" for error in judge.iter_errors(found)]
    assert problems == [], f"{command}: {problems[:3]}"


def _closed(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Later versions may add keys; this one may not print any that its schema does not have."""
    return {
        name: shape | {"additionalProperties": False} if "properties" in shape else shape
        for name, shape in shapes.items()
    }
