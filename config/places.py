"""Where things lie when nobody says otherwise: configuration, state, engines.

Reads nothing but the environment it is given, so that tests and services decide what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from config.vocabulary import EngineName

FILE_NAME = "modelyard.yaml"


def home(env: Mapping[str, str]) -> Path:
    """`$HOME`, or what the password database says where a service has none."""
    return Path(env["HOME"]) if env.get("HOME") else Path.home()


def expand(text: str, env: Mapping[str, str]) -> Path:
    """*text* as a path with a leading `~` replaced; variables are left alone, they are not ours to guess."""
    if text == "~" or text.startswith("~/"):
        return home(env) / text[2:]
    return Path(text)


def _xdg(env: Mapping[str, str], variable: str, otherwise: str) -> Path:
    # The XDG specification says to ignore values that are not absolute.
    given = env.get(variable, "")
    return Path(given) if given.startswith("/") else home(env) / otherwise


def config_candidates(env: Mapping[str, str], cwd: Path) -> tuple[Path, ...]:
    """Where a configuration is looked for when none is named, first one wins."""
    return (
        cwd / FILE_NAME,
        _xdg(env, "XDG_CONFIG_HOME", ".config") / "modelyard" / FILE_NAME,
        Path("/etc/modelyard") / FILE_NAME,
    )


def state_dir(env: Mapping[str, str]) -> Path:
    """Default of `state_dir`: systemd's `$STATE_DIRECTORY` (its first entry), else the XDG state folder."""
    given = env.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(given) if given else _xdg(env, "XDG_STATE_HOME", ".local/state") / "modelyard"


def engines_dir(env: Mapping[str, str]) -> Path:
    """Where `modelyard engine install` puts engines: `$MODELYARD_ENGINES`, else the XDG data folder."""
    given = env.get("MODELYARD_ENGINES", "")
    return (
        expand(given, env) if given else _xdg(env, "XDG_DATA_HOME", ".local/share") / "modelyard" / "engines"
    )


def engine_folder(engines_dir: Path, engine: EngineName) -> Path:
    """Folder of an engine's own virtual environment below *engines_dir*."""
    return engines_dir / engine.value
