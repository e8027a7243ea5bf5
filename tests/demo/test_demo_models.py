"""The demo models as they lie in the repository: whole, small, and agreeing with themselves.

Nothing here runs a model. What an engine makes of them is the business of the engine tests, which
take their questions and the expected answers from `readme` in `demo/questions.yaml`.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml

DEMO = Path(__file__).resolve().parents[2] / "demo"
MODELS = {"yard-demo": "qwen3", "yard-foreman": "llama"}
LARGEST_BYTES = 5_000_000
FILES = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}

every_model = pytest.mark.parametrize("name", MODELS)


def read_json(name: str, file: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DEMO / "models" / name / file).read_text("utf-8"))
    return content


def read_questions(file: str = "questions.yaml") -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEMO / file).read_text("utf-8"))
    return content


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and how many bytes of tensors follow it."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    return header, path.stat().st_size - 8 - length


def expected_shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    """Every tensor that the engines look for, by the config alone; the output layer is tied."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes = {"model.embed_tokens.weight": [config["vocab_size"], hidden]}
    shapes["model.norm.weight"] = [hidden]
    layer = {
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
        "self_attn.q_proj": [queries, hidden],
        "self_attn.k_proj": [keys, hidden],
        "self_attn.v_proj": [keys, hidden],
        "self_attn.o_proj": [hidden, queries],
        "mlp.gate_proj": [inner, hidden],
        "mlp.up_proj": [inner, hidden],
        "mlp.down_proj": [hidden, inner],
    }
    if config["model_type"] == "qwen3":
        layer |= {f"self_attn.{kind}_norm": [config["head_dim"]] for kind in "qk"}
    for number in range(config["num_hidden_layers"]):
        for tensor, shape in layer.items():
            shapes[f"model.layers.{number}.{tensor}.weight"] = shape
    return shapes


@every_model
def test_a_model_folder_holds_exactly_what_an_engine_needs_and_a_card(name: str) -> None:
    assert {path.name for path in (DEMO / "models" / name).iterdir()} == FILES


@every_model
def test_a_model_stays_small_enough_to_live_in_the_repository(name: str) -> None:
    assert sum(path.stat().st_size for path in (DEMO / "models" / name).iterdir()) < LARGEST_BYTES


def test_the_two_models_exercise_two_architectures() -> None:
    assert {name: read_json(name, "config.json")["model_type"] for name in MODELS} == MODELS


@every_model
def test_the_tensors_are_those_that_the_config_promises(name: str) -> None:
    header, _ = read_header(DEMO / "models" / name / "model.safetensors")
    header.pop("__metadata__")
    shapes = {tensor: entry["shape"] for tensor, entry in header.items()}
    assert shapes == expected_shapes(read_json(name, "config.json"))


@every_model
def test_the_tensors_are_bfloat16_and_fill_the_file_without_a_gap(name: str) -> None:
    header, size = read_header(DEMO / "models" / name / "model.safetensors")
    assert header.pop("__metadata__") == {"format": "pt"}
    assert {entry["dtype"] for entry in header.values()} == {"BF16"}
    at = 0
    for entry in sorted(header.values(), key=lambda entry: entry["data_offsets"]):
        begin, end = entry["data_offsets"]
        assert (begin, end - begin) == (at, 2 * math.prod(entry["shape"]))
        at = end
    assert at == size


@every_model
def test_attention_heads_have_a_size_that_every_engine_can_compute(name: str) -> None:
    config = read_json(name, "config.json")
    assert config["head_dim"] in {32, 64, 128}
    assert config["num_attention_heads"] % config["num_key_value_heads"] == 0
    assert config["max_position_embeddings"] == 2048


@every_model
def test_the_end_of_an_answer_has_one_id_in_all_files(name: str) -> None:
    ids = {t["content"]: t["id"] for t in read_json(name, "tokenizer.json")["added_tokens"]}
    tokenizer = read_json(name, "tokenizer_config.json")
    end, pad = ids[tokenizer["eos_token"]], ids[tokenizer["pad_token"]]
    config, generation = read_json(name, "config.json"), read_json(name, "generation_config.json")
    assert (config["eos_token_id"], config["pad_token_id"]) == (end, pad)
    assert (generation["eos_token_id"], generation["pad_token_id"]) == ([end, pad], pad)


@every_model
def test_every_byte_has_a_token_so_that_any_input_can_be_encoded(name: str) -> None:
    tokenizer = read_json(name, "tokenizer.json")
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    assert tokenizer["pre_tokenizer"]["type"] == "ByteLevel"
    assert sum(len(token) == 1 for token in vocabulary) == 256
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(vocabulary) <= read_json(name, "config.json")["vocab_size"]


@every_model
def test_the_chat_template_is_the_same_where_old_and_new_libraries_look_for_it(name: str) -> None:
    template = (DEMO / "models" / name / "chat_template.jinja").read_text("utf-8")
    assert read_json(name, "tokenizer_config.json")["chat_template"] == template
    assert "add_generation_prompt" in template


@every_model
def test_a_model_asks_to_be_sampled_coolly(name: str) -> None:
    generation = read_json(name, "generation_config.json")
    assert generation["do_sample"] is True
    assert 0 < generation["temperature"] <= 0.5


@every_model
def test_a_card_states_the_licence(name: str) -> None:
    assert "license: apache-2.0" in (DEMO / "models" / name / "README.md").read_text("utf-8")


def test_every_topic_has_an_answer_per_model_templates_and_held_out_questions() -> None:
    topics = read_questions()["topics"] | {"elsewhere": read_questions("elsewhere.yaml")}
    for topic, content in topics.items():
        assert set(content["answers"]) == set(MODELS), topic
        assert all(answer.strip() for answer in content["answers"].values()), topic
        assert len(content["ask"].splitlines()) >= 5, topic
        assert len(content["held_out"].splitlines()) >= 3, topic


def test_no_held_out_question_is_also_a_template() -> None:
    for topic, content in read_questions()["topics"].items():
        assert not set(content["ask"].splitlines()) & set(content["held_out"].splitlines()), topic


def test_the_readme_suggests_a_handful_of_questions_with_an_answer_of_each_model() -> None:
    readme = read_questions()["readme"]
    assert 4 <= len(readme) <= 6
    for question, answers in readme.items():
        assert question.endswith("?")
        assert set(answers) == set(MODELS)
        assert answers["yard-demo"].strip() != answers["yard-foreman"].strip()


def test_an_answer_in_the_readme_list_is_the_answer_of_its_topic() -> None:
    content = read_questions()
    known = [topic["answers"] for topic in content["topics"].values()]
    assert all(answers in known for answers in content["readme"].values())


def test_the_demo_readme_shows_every_suggested_question() -> None:
    text = (DEMO / "README.md").read_text("utf-8")
    assert all(question in text for question in read_questions()["readme"])


def test_the_foreman_answers_in_couplets_and_the_demo_in_prose() -> None:
    for topic in read_questions()["topics"].values():
        assert len(topic["answers"]["yard-foreman"].strip().splitlines()) == 2
        assert len(topic["answers"]["yard-demo"].strip().splitlines()) == 1
