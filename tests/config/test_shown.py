"""The effective configuration: every value, where it comes from, and nothing that is a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import modelyard
from config.load import Loaded, load_settings
from config.schema import Settings
from config.shown import effective, plain, sources, yaml_lines

EXAMPLE = Path(modelyard.__file__).parent.parent / "docs" / "modelyard.example.yaml"
HOME = {"HOME": "/home/op"}


def loaded(folder: Path, text: str, **env: str) -> Loaded:
    file = folder / "modelyard.yaml"
    file.write_text(text)
    return load_settings(file, HOME | env)


def text_of(one: Loaded, env: dict[str, str] = HOME) -> str:
    return "\n".join(f"{text}  {comment}" for text, comment in yaml_lines(effective(one, env))) + "\n"


def test_what_is_shown_reads_back_as_the_same_configuration(tmp_path: Path) -> None:
    first = load_settings(EXAMPLE, HOME)
    second = loaded(tmp_path, text_of(first).replace("hash: '***'", f"hash: sha256:{'0' * 64}"))
    shown = effective(first, HOME)
    assert plain(effective(second, HOME)) == plain(shown)
    assert sum(source != "default" for source in sources(shown).values()) > 50


def test_without_a_file_every_key_is_there_and_is_the_default() -> None:
    tree = effective(load_settings(None, HOME), HOME)
    assert list(tree) == list(Settings.model_fields)
    assert set(sources(tree).values()) == {"default"}
    assert plain(tree)["state_dir"] == "/home/op/.local/state/modelyard"
    assert plain(tree)["keys_file"] == "/home/op/.local/state/modelyard/keys.json"
    assert plain(tree)["endpoints"][0]["url"] == "http://localhost:8000"


def test_a_value_names_the_line_it_stands_on(tmp_path: Path) -> None:
    one = loaded(tmp_path, "ttl: 90s\nmodels:\n  qwen:\n    source: a/b\n    env:\n      A: 1\n")
    found = sources(effective(one, HOME))
    file = tmp_path / "modelyard.yaml"
    assert found["ttl"] == f"{file}:1"
    assert found["models.qwen.source"] == f"{file}:4"
    assert found["models.qwen.env.A"] == f"{file}:6"
    assert found["models.qwen.engine"] == found["log.level"] == "default"
    assert "models.qwen.cmd" not in found, "an entry's unset keys are left out"


def test_variables_are_named_where_they_decide(tmp_path: Path) -> None:
    env = {"STATE_DIRECTORY": "/var/lib/yard", "VLLM_MLX_ENDPOINT": "http://mac:8000"}
    found = effective(loaded(tmp_path, "ttl: 5\n", **env), HOME | env)
    assert plain(found)["state_dir"] == "/var/lib/yard"
    assert sources(found)["state_dir"] == "$STATE_DIRECTORY"
    assert sources(found)["endpoints[0].url"] == "$VLLM_MLX_ENDPOINT"
    written = loaded(tmp_path, "state_dir: /srv/yard\nendpoints: []\n", **env)
    assert sources(effective(written, HOME | env))["state_dir"] == f"{tmp_path}/modelyard.yaml:1"
    assert plain(effective(written, HOME | env))["endpoints"] == []


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        ({"args": ["--api-key", "SECRET", "--x", "1"]}, ["--api-key", "***", "--x", "1"]),
        ({"args": ["--hf-token=SECRET"]}, ["--hf-token=***"]),
        ({"args": ["--max-tokens", "5", "--tokenizer", "t"]}, ["--max-tokens", "5", "--tokenizer", "t"]),
        ({"cmd": "serve --port {port} --api-key SECRET -m x"}, "serve --port {port} --api-key *** -m x"),
        ({"cmd": ["serve", "--password", "SECRET"]}, ["serve", "--password", "***"]),
        ({"env": {"HF_TOKEN": "SECRET"}}, {"HF_TOKEN": "***"}),
        ({"env": {"PGPASSWORD": "SECRET"}}, {"PGPASSWORD": "***"}),
        ({"env": {"TOKENIZERS_PARALLELISM": "0"}}, {"TOKENIZERS_PARALLELISM": "0"}),
        ({"env": {"PROXY": "http://me:SECRET@proxy:1"}}, {"PROXY": "http://***@proxy:1"}),
    ],
)
def test_secrets_are_hidden_and_what_only_looks_like_one_is_not(entry: dict[str, Any], shown: Any) -> None:
    settings = Settings.model_validate({"models": {"m": {"source": "a/b", **entry}}})
    one = Loaded(settings, None)
    (key,) = entry
    assert plain(effective(one, HOME))["models"]["m"][key] == shown
    assert "SECRET" not in text_of(one)


def test_a_keys_hash_and_an_endpoints_password_are_hidden() -> None:
    settings = Settings.model_validate(
        {
            "keys": {"me": {"hash": f"sha256:{'ab' * 32}", "expires": "2027-01-31"}},
            "endpoints": [{"name": "x", "url": "http://user:SECRET@host:1"}],
        }
    )
    text = text_of(Loaded(settings, None))
    assert "abab" not in text
    assert "SECRET" not in text
    assert "expires: '2027-01-31'" in text


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("ttl: 600", "ttl: 10m"),
        ("ttl: 5400", "ttl: 90m"),
        ("ttl: 7200", "ttl: 2h"),
        ("ttl: 0.5", "ttl: 0.5s"),
        ("memory: {host: 80%}", "  host: 80%"),
        ("memory: {host: 1536MiB}", "  host: 1536MiB"),
        ("memory: {host: 1000}", "  host: 1000"),
        ("models: {m: {cmd: x, memory: {gpu0: 2048MiB}}}", "      gpu0: 2GiB"),
        ("default_model: 'off'", "default_model: 'off'"),
    ],
)
def test_values_are_written_as_an_operator_would(tmp_path: Path, given: str, written: str) -> None:
    lines = [text.rstrip() for text, _ in yaml_lines(effective(loaded(tmp_path, f"{given}\n"), HOME))]
    assert written in lines
