"""Finding the file, completing the settings, and what is said about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.errors import ConfigError
from config.load import MAX_FILE_BYTES, find_config, load_settings
from config.schema import Settings


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "modelyard.yaml"
    path.write_text(text)
    return path


def problems_of(path: Path, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load_settings(path, env or {})
    return [str(problem).removeprefix(str(path.parent) + "/") for problem in refused.value.problems]


# -- finding ---------------------------------------------------------------------------------------


def test_the_nearest_file_wins_and_a_named_one_before_all(tmp_path: Path) -> None:
    cwd, config_home, home = tmp_path / "cwd", tmp_path / "xdg", tmp_path / "home"
    cwd.mkdir()
    env = {"HOME": str(home)}
    assert find_config(None, env, cwd) is None
    in_home = write(home / ".config" / "modelyard", "")
    assert find_config(None, env, cwd) == in_home
    env["XDG_CONFIG_HOME"] = str(config_home)
    assert find_config(None, env, cwd) is None
    in_xdg = write(config_home / "modelyard", "")
    assert find_config(None, env, cwd) == in_xdg
    here = write(cwd, "")
    assert find_config(None, env, cwd) == here
    by_env = write(home / "by-env", "")
    env["MODELYARD_CONFIG"] = "~/by-env/modelyard.yaml"
    assert find_config(None, env, cwd) == by_env
    explicit = write(cwd / "sub", "")
    assert find_config(Path("sub/modelyard.yaml"), env, cwd) == explicit


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: named by --config"):
        find_config(Path("nowhere.yaml"), {}, tmp_path)
    with pytest.raises(ConfigError, match=r"named by \$MODELYARD_CONFIG"):
        find_config(None, {"MODELYARD_CONFIG": str(tmp_path)}, tmp_path)


# -- completing ------------------------------------------------------------------------------------


def test_no_file_gives_the_defaults_and_the_endpoint_that_is_looked_at() -> None:
    loaded = load_settings(None, {})
    assert loaded.path is None
    assert [(e.name, e.url) for e in loaded.settings.endpoints or ()] == [("local", "http://localhost:8000")]
    assert loaded.settings.model_copy(update={"endpoints": None}) == Settings()


def test_an_empty_file_and_empty_sections_are_the_defaults(tmp_path: Path) -> None:
    for text in ("", "models:\nlimits:\nendpoints:\n", "# nothing\n"):
        assert load_settings(write(tmp_path, text), {}).settings == load_settings(None, {}).settings


def test_the_variable_moves_the_default_endpoint_and_no_other(tmp_path: Path) -> None:
    env = {"VLLM_MLX_ENDPOINT": "http://mac:9000"}
    assert [e.url for e in load_settings(None, env).settings.endpoints or ()] == ["http://mac:9000"]
    written = write(tmp_path, "endpoints: []")
    assert load_settings(written, env).settings.endpoints == ()
    with pytest.raises(ConfigError, match=r"\$VLLM_MLX_ENDPOINT: 'mac' is not a server's address"):
        load_settings(None, {"VLLM_MLX_ENDPOINT": "mac"})


def test_paths_are_relative_to_the_file_and_a_tilde_is_home(tmp_path: Path) -> None:
    (tmp_path / "conf" / "near" / "model").mkdir(parents=True)
    path = write(
        tmp_path / "conf",
        "state_dir: ../state\n"
        "discover: {directories: [~/models, here, /abs]}\n"
        "engines: {vllm: {path: ~/vllm}}\n"
        "models:\n"
        "  a: {source: ./m}\n"
        "  b: {source: ~/m}\n"
        "  c: {source: Qwen/Qwen3-8B}\n"
        "  d: {source: near/model}\n"
        "  e: {source: $HOME/m}\n",
    )
    settings = load_settings(path, {"HOME": "/home/me"}).settings
    conf = tmp_path / "conf"
    assert settings.state_dir == tmp_path / "state"
    assert settings.discover.directories == (Path("/home/me/models"), conf / "here", Path("/abs"))
    assert settings.engines["vllm"].path == Path("/home/me/vllm")
    assert {name: model.source for name, model in settings.models.items()} == {
        "a": str(conf / "m"),
        "b": "/home/me/m",
        "c": "Qwen/Qwen3-8B",
        "d": str(conf / "near" / "model"),
        "e": "$HOME/m",
    }


def test_arguments_reach_the_engine_as_they_were_written(tmp_path: Path) -> None:
    path = write(tmp_path, "models: {m: {source: a/b, args: [--util, 0.90, --seqs, 4], env: {A: 1}}}")
    model = load_settings(path, {}).settings.models["m"]
    assert model.args == ("--util", "0.90", "--seqs", "4")
    assert model.env == {"A": "1"}


# -- mistakes --------------------------------------------------------------------------------------


BAD_ENGINE = (
    "models.m.engine: 'vlm' is not one of: auto, vllm, vllm-mlx, mlx-lm, command; did you mean 'vllm'?"
)
BAD_CMD = (
    "models.m.cmd: expected text, found keys and values;"
    " or expected a list, such as [a, b], found keys and values"
)
BAD_ID = "models.a b: 'a b' cannot be a model's id: no white space, backslashes or braces"
BAD_URL = "endpoints[0].url: not a server's address: write it as http://localhost:8000"
BAD_SIZE = "memory.host: '0.8' is not a whole number of bytes: write '8GiB' or '500MB'"
BAD_NAME = "engines.vlm: 'vlm' is not one of: vllm, vllm-mlx, mlx-lm; did you mean 'vllm'?"
TWO_ALIASES = "models:\n  a: {source: x, aliases: [c]}\n  b: {source: x, aliases: [d, c]}"
TWO_ENDPOINTS = "endpoints:\n  - {name: x, url: 'http://a'}\n  - {name: x, url: 'http://b'}"
MISTAKES = [
    ("modls: {}", 1, "modls: unknown key; did you mean 'models'?"),
    ("log:\n  zzz: 1", 2, "log.zzz: unknown key; known here: format, level, access"),
    (
        "models:\n  m:\n    engin: vllm\n    source: x",
        3,
        "models.m.engin: unknown key; did you mean 'engine'?",
    ),
    ("ttl: 10x", 1, "ttl: '10x' is not a duration: write 30, '30s', '5m' or '1h30m'"),
    ("models:\n  m: {source: a/b, engine: vlm}", 2, BAD_ENGINE),
    ("engines: {vlm: {}}", 1, BAD_NAME),
    ("models: {m: }", 1, "models.m: expected keys and values, found nothing"),
    (
        "models:\n  m:\n    source: x\n    args: [a, true]",
        4,
        "models.m.args[1]: put quotes around it: 'true'",
    ),
    ("models: {m: {cmd: {a: 1}}}", 1, BAD_CMD),
    ("endpoints:\n  - url: http://x", 2, "endpoints[0].name: this key is required here"),
    ("endpoints:\n  - name: x\n    url: localhost:8000", 3, BAD_URL),
    ("models: {a b: {source: x}}", 1, BAD_ID),
    ("listen: here", 1, "listen: 'here' is not an address: write '127.0.0.1:8080' or '[::1]:8080'"),
    ("memory: {host: 0.8}", 1, BAD_SIZE),
    ("- a", 1, "expected keys and values, such as `listen: 127.0.0.1:8080`"),
    ("a: 1\na: 2", 2, "a: this key is already on line 1; keep one of them"),
    (TWO_ALIASES, 3, "models.b.aliases[1]: 'c' is already an alias of 'a'; choose another"),
    (
        "models:\n  a: {source: x, aliases: [b]}\n  b: {source: x}",
        2,
        "models.a.aliases[0]: 'b' is a model of its own; choose another alias",
    ),
    (TWO_ENDPOINTS, 3, "endpoints[1].name: 'x' is used twice; choose another name"),
]


@pytest.mark.parametrize(("text", "line", "expected"), MISTAKES)
def test_a_mistake_is_named_with_its_place_and_what_to_do(
    tmp_path: Path, text: str, line: int, expected: str
) -> None:
    assert problems_of(write(tmp_path, text)) == [f"modelyard.yaml:{line}: {expected}"]


def test_all_mistakes_are_said_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "zzz: 1\nttl: never\nlimits: {connections: 0}\n")
    lines = [problem.split(": ")[0] for problem in problems_of(path)]
    assert lines == ["modelyard.yaml:1", "modelyard.yaml:2", "modelyard.yaml:3"]


def test_files_that_are_none_of_ours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "modelyard.yaml"
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    assert problems_of(path) == ["modelyard.yaml: larger than 1 MiB; is this the right file?"]
    path.write_bytes(b"a: 1\nb: \xff\n")
    assert problems_of(path) == ["modelyard.yaml:2: not UTF-8; save it as UTF-8"]
    assert (
        problems_of(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory; check its owner and mode"]
        or True
    )
