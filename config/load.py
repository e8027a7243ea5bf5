"""Finds the configuration file, reads it, and says what is wrong with it by file, line and key."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from config.document import Document, DocumentError, dotted, parse
from config.document import Path as KeyPath
from config.errors import ConfigError, Problem
from config.places import config_candidates, expand
from config.schema import EndpointConfig, ModelConfig, Settings
from config.shape import children, choices

MAX_FILE_BYTES = 1024 * 1024
"""A thousand models take 200 KB; more is a mistake, and YAML is slow to parse."""

DEFAULT_ENDPOINT = "http://localhost:8000"
"""Where vLLM and vllm-mlx listen unless told otherwise."""

_BUILT_IN = "built-in defaults"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and where they came from."""

    settings: Settings
    """Complete: paths are absolute and `endpoints` is never None."""
    path: Path | None
    """The file; None when there is none and everything is the default."""
    written: Document = Document(None, {})
    """What stands in the file, with its lines; what it lacks is a default."""
    digest: bytes = b""
    """Of the file's bytes: another one, other words."""


def find_config(explicit: Path | None, env: Mapping[str, str], cwd: Path) -> Path | None:
    """The configuration file to use; None when there is none.

    `--config` (*explicit*), `$MODELYARD_CONFIG`, the working directory, the XDG folder, `/etc/modelyard`: in
    this order. One that was named must exist: ConfigError.
    """
    given = env.get("MODELYARD_CONFIG", "")
    for path, by in ((explicit, "--config"), (expand(given, env) if given else None, "$MODELYARD_CONFIG")):
        if path is None:
            continue
        full = cwd / path
        if not full.is_file():
            what = f"named by {by} but is not a file; create it or name another"
            raise ConfigError(Problem(str(full), what))
        return full
    for candidate in config_candidates(env, cwd):
        if candidate.is_file():
            return candidate
    return None


@dataclass(frozen=True, slots=True)
class Draft:
    """A file that is read elsewhere: what is in it, and where it lies."""

    path: Path
    """Absolute; relative paths in it start at its folder."""
    raw: bytes


def load_settings(path: Path | None, env: Mapping[str, str]) -> Loaded:
    """The settings in *path* (None: the defaults), completed by *env*.

    Raises ConfigError with every problem that was found, not only the first.
    """
    if path is None:
        return _load(None, Document(None, {}), b"", env)
    return load_draft(Draft(path, _read(path)), env)


def load_draft(draft: Draft, env: Mapping[str, str]) -> Loaded:
    """The settings in *draft*, as `load_settings` has those of a file."""
    digest = sha256(draft.raw).digest()
    return _load(draft.path, _parse(draft.path, draft.raw), digest, env)


def _load(path: Path | None, document: Document, digest: bytes, env: Mapping[str, str]) -> Loaded:
    where = _BUILT_IN if path is None else str(path)
    try:
        settings = Settings.model_validate({} if document.value is None else document.value)
    except ValidationError as error:
        raise ConfigError(*_problems(where, document, error)) from None
    clashes = tuple(
        Problem(where, what, document.line_of(key), dotted(key)) for key, what in _inconsistencies(settings)
    )
    if clashes:
        raise ConfigError(*clashes)
    base = Path.cwd() if path is None else path.resolve().parent
    return Loaded(_complete(settings, base, env), path, document, digest)


# -- reading ---------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}; check its owner and mode"
        raise ConfigError(Problem(str(path), what)) from None


def _parse(path: Path, raw: bytes) -> Document:
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(Problem(str(path), "larger than 1 MiB; is this the right file?"))
    try:
        document = parse(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(Problem(str(path), "not UTF-8; save it as UTF-8", line)) from None
    except DocumentError as error:
        raise ConfigError(Problem(str(path), error.what, error.line, error.key)) from None
    if document.value is not None and not isinstance(document.value, dict):
        what = "expected keys and values, such as `listen: 127.0.0.1:8080`"
        raise ConfigError(Problem(str(path), what, document.line_of(())))
    return document


# -- what pydantic found ---------------------------------------------------------------------------


def _problems(where: str, document: Document, error: ValidationError) -> list[Problem]:
    said: dict[KeyPath, list[str]] = {}
    for details in error.errors(include_url=False):
        key = _key_path(document, details)
        what = _explain(key, details)
        if what not in said.setdefault(key, []):
            said[key].append(what)
    found = [
        Problem(where, "; or ".join(whats), document.line_of(key), dotted(key)) for key, whats in said.items()
    ]
    return sorted(found, key=lambda problem: (problem.line or 0, problem.key))


def _key_path(document: Document, details: ErrorDetails) -> KeyPath:
    """Where it is, without the steps that pydantic adds for unions, keys and validators."""
    path: KeyPath = ()
    value = document.value
    for part in details["loc"]:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            break
        path = (*path, part)
    # A key that is missing is not in the file, but its name is what the message is about.
    return (*path, details["loc"][-1]) if details["type"] == "missing" else path


def _explain(key: KeyPath, details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(key)
    if kind in ("literal_error", "enum"):
        return _not_a_choice(details["input"], choices(Settings, key), context)
    if kind == "value_error":
        return str(context.get("error", details["msg"]))
    if kind == "missing":
        return "this key is required here"
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(str(key[-1]) if key else "", details["msg"])
    if kind in _EXPECTED:
        # What stands in the place of a key's hash may be the key.
        found = "something else" if key[:1] == ("keys",) else _describe(details["input"])
        return f"expected {_EXPECTED[kind]}, found {found}"
    return details["msg"][:1].lower() + details["msg"][1:]


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list, such as [a, b]",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "path_type": "a path",
}

_PATTERNS = {
    "url": "not a server's address: write it as http://localhost:8000",
    "hash": "not the hash of a key: `modelyard key add NAME --print` shows it, and never write the key",
    "quantization": "not a method's name: write it as the engine does, such as fp8",
    "name": "a name has letters, digits, '.', '_' and '-', and starts with a letter or a digit",
}


def _describe(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value) if isinstance(value, str) else str(value).lower()
    return text if len(text) <= 60 else text[:57] + "..."


def _unknown_key(key: KeyPath) -> str:
    known = children(Settings, key[:-1])
    near = difflib.get_close_matches(str(key[-1]), known, n=1, cutoff=0.6)
    if near:
        return f"unknown key; did you mean {near[0]!r}?"
    return f"unknown key; known here: {', '.join(known)}"


def _not_a_choice(given: object, known: tuple[str, ...], context: Mapping[str, Any]) -> str:
    expected = ", ".join(known) if known else str(context.get("expected", "another value"))
    near = difflib.get_close_matches(str(given), known, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{_describe(given)} is not one of: {expected}{hint}"


# -- what no single key can know -------------------------------------------------------------------


def _inconsistencies(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    owner: dict[str, str] = {}
    for name, model in settings.models.items():
        for index, alias in enumerate(model.aliases):
            key = ("models", name, "aliases", index)
            if alias in settings.models and alias != name:
                yield key, f"{alias!r} is a model of its own; choose another alias"
            elif owner.setdefault(alias, name) != name:
                yield key, f"{alias!r} is already an alias of {owner[alias]!r}; choose another"
    seen: set[str] = set()
    for index, endpoint in enumerate(settings.endpoints or ()):
        if endpoint.name in seen:
            yield ("endpoints", index, "name"), f"{endpoint.name!r} is used twice; choose another name"
        seen.add(endpoint.name)


# -- completing ------------------------------------------------------------------------------------


def _complete(settings: Settings, base: Path, env: Mapping[str, str]) -> Settings:
    def absolute(path: Path) -> Path:
        return Path(os.path.normpath(base / expand(str(path), env)))

    def found(source: str) -> str:
        return str(absolute(Path(source))) if _is_folder(source, base) else source

    def source(model: ModelConfig) -> ModelConfig:
        adapters = {name: found(one) for name, one in model.adapters.items()}
        whole = None if model.source is None else found(model.source)
        return model.model_copy(update={"source": whole, "adapters": adapters})

    directories = tuple(absolute(path) for path in settings.discover.directories)
    pictures = tuple(absolute(path) for path in settings.seed.image_directories)
    return settings.model_copy(
        update={
            "state_dir": absolute(settings.state_dir) if settings.state_dir else None,
            "keys_file": absolute(settings.keys_file) if settings.keys_file else None,
            "models": {name: source(model) for name, model in settings.models.items()},
            "discover": settings.discover.model_copy(update={"directories": directories}),
            "seed": settings.seed.model_copy(update={"image_directories": pictures}),
            "engines": {
                name: engine.model_copy(update={"path": absolute(engine.path)}) if engine.path else engine
                for name, engine in settings.engines.items()
            },
            "endpoints": _default_endpoints(env) if settings.endpoints is None else settings.endpoints,
        }
    )


def _is_folder(source: str, base: Path) -> bool:
    # `org/name` is a hub id unless a folder of that name is there: what the engines themselves do.
    return source.startswith(("/", "./", "../", "~")) or source in (".", "..") or (base / source).is_dir()


def _default_endpoints(env: Mapping[str, str]) -> tuple[EndpointConfig, ...]:
    url = env.get("VLLM_MLX_ENDPOINT") or DEFAULT_ENDPOINT
    try:
        return (EndpointConfig(name="local", url=url),)
    except ValidationError:
        what = f"{url!r} is not a server's address: write it as {DEFAULT_ENDPOINT}"
        raise ConfigError(Problem("$VLLM_MLX_ENDPOINT", what)) from None
