"""What the files of a checkpoint say, read from real layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.capability import Capability
from registry.chat_template import mentions_thinking, mentions_tools
from registry.checkpoint import CheckpointFiles, interpret
from registry.checkpoint_reader import MAX_JSON_BYTES, CheckpointMemory, read_checkpoint
from registry.footprint import KvShape
from tests.support.checkpoints import QWEN3, SMALL, safetensors, write_checkpoint

C = Capability
BITSANDBYTES = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0}
LINEAR = {"type": "linear", "factor": 8.0}
VISION = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "vision_config": {"depth": 2},
    "video_token_id": 7,
}


def facts(config: dict[str, Any], **files: Any) -> Any:
    return interpret(CheckpointFiles(config=config, **files))


# -- capabilities ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "files", "yes"),
    [
        (QWEN3, {}, {C.GENERATE}),
        (QWEN3, {"chat_template": "{% if tools %}"}, {C.GENERATE, C.TOOL_USE}),
        (QWEN3, {"chat_template": "{% if enable_thinking %}"}, {C.GENERATE, C.REASONING}),
        ({"model_type": "qwen3"}, {}, {C.GENERATE}),
        (VISION, {}, {C.GENERATE, C.VISION, C.VIDEO}),
        ({**QWEN3, "video_token_id": 7}, {}, {C.GENERATE}),
        ({**QWEN3, "audio_config": {"x": 1}}, {}, {C.GENERATE, C.AUDIO}),
        ({**QWEN3, "audio_token_id": 7}, {}, {C.GENERATE, C.AUDIO}),
        ({**QWEN3, "audio_token_id": 7, "audio_config": None}, {}, {C.GENERATE}),
        (
            {**QWEN3, "vision_config": {"x": 1}, "video_placeholder": "<v>"},
            {},
            {C.GENERATE, C.VISION, C.VIDEO},
        ),
        ({"architectures": ["WhisperForConditionalGeneration"]}, {}, {C.TRANSCRIBE}),
        ({"architectures": ["XLMRobertaForSequenceClassification"], "id2label": {"0": "L"}}, {}, {C.RERANK}),
        (
            {"architectures": ["BertForSequenceClassification"], "id2label": {"0": 1, "1": 2}},
            {},
            {C.CLASSIFY},
        ),
        ({"architectures": ["Qwen2ForRewardModel"]}, {}, {C.CLASSIFY}),
        ({"architectures": ["BertModel"]}, {}, {C.EMBED}),
        ({"model_type": "bert"}, {}, {C.EMBED}),
        (QWEN3, {"modules": ({"type": "sentence_transformers.models.Transformer"},)}, {C.EMBED}),
        (QWEN3, {"modules": ({"type": "sentence_transformers.cross_encoder.CrossEncoder"},)}, {C.RERANK}),
        ({}, {}, set()),
    ],
)
def test_capabilities(config: dict[str, Any], files: dict[str, Any], yes: set[C]) -> None:
    assert facts(config, **files).yes == yes


def test_a_text_model_is_known_to_see_nothing_and_a_pooling_class_is_certain() -> None:
    text = facts(QWEN3, chat_template="plain")
    assert {C.VISION, C.VIDEO, C.AUDIO, C.TOOL_USE, C.REASONING} <= text.no
    assert not text.role_is_certain
    assert facts({"architectures": ["BertModel"]}).role_is_certain


@pytest.mark.parametrize(
    ("template", "thinks"),
    [
        ("{{ messages }}", False),
        ("{% if enable_thinking %}", True),
        ("<|channel|>analysis", True),
        ("{% if add_generation_prompt %}<|im_start|>assistant\\n<think>\\n{% endif %}", True),
        (
            "{{ content.split('</think>')[-1] }}<think>{% if add_generation_prompt %}assistant{% endif %}",
            None,
        ),
    ],
)
def test_a_template_that_only_strips_thoughts_proves_nothing(template: str, thinks: bool | None) -> None:
    assert mentions_thinking(template) is thinks
    assert not mentions_tools(template)


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "files", "context"),
    [
        ({"max_position_embeddings": 40960}, {}, 40960),
        ({"max_position_embeddings": 4096, "n_positions": 2048}, {}, 2048),
        ({"text_config": {"max_position_embeddings": 8192}}, {}, 8192),
        ({"max_position_embeddings": 32768, "rope_scaling": {"type": "linear", "factor": 2.0}}, {}, 65536),
        ({"max_position_embeddings": 131072, "rope_scaling": YARN}, {}, 131072),
        ({"max_position_embeddings": 131072, "rope_scaling": LLAMA3_ROPE}, {}, 131072),
        ({"model_type": "gemma3", "max_position_embeddings": 131072, "rope_scaling": LINEAR}, {}, 131072),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, {}, 512),
        ({"max_position_embeddings": 512}, {"sentence_config": {"max_seq_length": 256}}, 256),
        ({"max_position_embeddings": 512}, {"tokenizer_config": {"model_max_length": 10**30}}, 512),
        ({"max_position_embeddings": 8192}, {"tokenizer_config": {"model_max_length": 4096}}, 4096),
        ({"max_position_embeddings": True}, {}, None),
        ({"max_position_embeddings": "many"}, {}, None),
        ({}, {}, None),
    ],
)  # fmt: skip
def test_context(config: dict[str, Any], files: dict[str, Any], context: int | None) -> None:
    assert facts({"architectures": ["XForCausalLM"], **config}, **files).context_length == context


@pytest.mark.parametrize(
    ("config", "quantization", "mlx"),
    [
        ({"torch_dtype": "bfloat16"}, "bf16", False),
        ({"text_config": {"dtype": "float16"}}, "fp16", False),
        ({"quantization": {"bits": 4, "group_size": 64}}, "mlx-4bit", True),
        ({"quantization": {"bits": 4, "mode": "mxfp4"}}, "mlx-mxfp4", True),
        ({"quantization_config": {"bits": 4, "group_size": 64}}, "mlx-4bit", True),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq-4bit", False),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8", False),
        (
            BITSANDBYTES,
            "bitsandbytes-4bit",
            False,
        ),
        ({"text_config": {"quantization_config": {"quant_method": "mxfp4"}}}, "mxfp4", False),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, "nvfp4", False),
        ({}, None, False),
        (
            {
                "quantization_config": {
                    "quant_method": "modelopt",
                    "quant_algo": "MIXED_PRECISION",
                    "quantized_layers": {"a": {"quant_algo": "FP8"}, "b": {"quant_algo": "W4A16_NVFP4"}},
                }
            },
            "nvfp4",
            False,
        ),
        ({"quantization_config": {"quant_algo": "MIXED_PRECISION"}}, "mixed_precision", False),
        ({"quantization_config": {"quant_method": "fp8"}, "expert_dtype": "fp4"}, "fp4+fp8", False),
    ],
)
def test_quantization(config: dict[str, Any], quantization: str | None, mlx: bool) -> None:
    found = facts({"architectures": ["XForCausalLM"], **config})
    assert (found.quantization, found.mlx_quantized) == (quantization, mlx)


LLAMA = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (LLAMA, KvShape(32, 8, 128)),
        ({**LLAMA, "head_dim": 64}, KvShape(32, 8, 64)),
        ({"text_config": LLAMA}, KvShape(32, 8, 128)),
        ({"n_layer": 12, "n_head": 12, "n_embd": 768}, KvShape(12, 12, 64)),
        (
            {**LLAMA, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128},
            KvShape(32, 1, 0, latent=576, expanded=32 * (128 + 64 + 128)),
        ),
        (
            {**LLAMA, "layer_types": ["full_attention", "sliding_attention"] * 16, "sliding_window": 1024},
            KvShape(16, 8, 128, sliding_layers=16, window=1024),
        ),
        ({**LLAMA, "layer_types": ["linear_attention"] * 24 + ["full_attention"] * 8}, KvShape(8, 8, 128)),
        ({**LLAMA, "full_attention_interval": 4}, KvShape(8, 8, 128)),
        (
            {**LLAMA, "model_type": "mistral", "sliding_window": 4096},
            KvShape(0, 8, 128, sliding_layers=32, window=4096),
        ),
        ({**LLAMA, "torch_dtype": "float32"}, KvShape(32, 8, 128, value_bytes=4)),
        (
            # Measured with vLLM 0.32: 4 layers of 4 heads of 16 + 16 take 2048 bytes a token.
            {
                "model_type": "minicpm3",
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "kv_lora_rank": 32,
                "qk_rope_head_dim": 16,
                "qk_nope_head_dim": 16,
                "v_head_dim": 16,
            },
            KvShape(4, 1, 0, latent=256, expanded=192),
        ),
        (
            {**LLAMA, "model_type": "llama4_text", "attention_chunk_size": 8192},
            KvShape(8, 8, 128, sliding_layers=24, window=8192),
        ),
        (
            {**LLAMA, "attention_chunk_size": 8192, "no_rope_layers": [1, 0] * 16},
            KvShape(16, 8, 128, sliding_layers=16, window=8192),
        ),
        ({"num_hidden_layers": 3}, None),
        ({}, None),
    ],
)
def test_the_shape_of_the_attention_cache(config: dict[str, Any], shape: KvShape | None) -> None:
    assert facts(config).kv == shape


# -- reading folders -------------------------------------------------------------------------------


def test_a_complete_folder(tmp_path: Path) -> None:
    found = read_checkpoint(write_checkpoint(tmp_path))
    assert found.problem is None
    assert found.size_bytes == len(SMALL)
    assert found.parameters == 4 * 8 + 8
    assert found.context_length == 2048
    assert found.context_source == "config.json max_position_embeddings"
    assert found.architecture == "Qwen3ForCausalLM"
    assert found.weight_format == "safetensors"
    assert found.has_chat_template
    assert found.kv == KvShape(2, 1, 32, value_bytes=4)


def index_of(*shards: str) -> dict[str, Any]:
    weights = {f"w{n}": shard for n, shard in enumerate(shards)}
    return {"metadata": {"total_parameters": 99}, "weight_map": weights}


INDEX = "model.safetensors.index.json"
SHARDS = tuple(f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3))


PARTIAL: dict[str, Any] = {
    "model__safetensors": None,
    INDEX: index_of(*SHARDS),
    SHARDS[0]: b"x",
}


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"config__json": "{"}, "config.json is not valid JSON"),
        ({"config__json": "[1]"}, "config.json is not a JSON object"),
        ({"config__json": "[" * 100_000}, "config.json is not valid JSON"),
        ({"config__json": None}, "no config.json"),
        ({"tokenizer_config__json": "nope"}, "tokenizer_config.json is not valid JSON"),
        ({"model__safetensors": None}, "partial download: no weights"),
        ({"model__safetensors": b""}, "partial download: model.safetensors missing"),
        ({"model__safetensors": SMALL[:-1]}, "model.safetensors is damaged or not complete"),
        ({"model__safetensors": b"\xff" * 100}, "model.safetensors is damaged or not complete"),
        ({"model__safetensors": b"\x02" + bytes(7) + b"[]"}, None),
        (
            PARTIAL | {SHARDS[2]: b"x"},
            "partial download: model-00002-of-00003.safetensors missing",
        ),
        (PARTIAL, "partial download: model-00002-of-00003.safetensors and 1 more missing"),
        (
            {"model__safetensors": None, SHARDS[0]: b"x"},
            "partial download: model-00002-of-00003.safetensors and 1 more missing",
        ),
        ({INDEX: {"weight_map": []}}, "model.safetensors.index.json lists no weights"),
        ({"config__json": None, "adapter_config.json": {"base_model_name_or_path": "a/b"}},
         "a LoRA adapter and not a model: serve a/b with it"),
        ({"config__json": None, "model_index.json": {}}, "a diffusers pipeline: no engine here serves it"),
    ],
)  # fmt: skip
def test_what_is_broken_is_a_problem_and_never_an_exception(
    tmp_path: Path, files: dict[str, Any], problem: str | None
) -> None:
    assert read_checkpoint(write_checkpoint(tmp_path, **files)).problem == problem


def test_sharded_weights_are_added_up_and_counted_by_the_index(tmp_path: Path) -> None:
    files: dict[str, Any] = dict.fromkeys(SHARDS, b"x" * 10)
    files |= {"model.safetensors.index.json": index_of(*SHARDS), "model__safetensors": None}
    found = read_checkpoint(write_checkpoint(tmp_path, **files))
    assert (found.problem, found.size_bytes, found.parameters) == (None, 30, 99)


def test_weights_that_are_there_twice_count_once(tmp_path: Path) -> None:
    found = read_checkpoint(write_checkpoint(tmp_path, consolidated__safetensors=SMALL))
    assert found.size_bytes == len(SMALL)


def test_packed_weights_are_not_counted_as_parameters(tmp_path: Path) -> None:
    packed = safetensors({"w": ("U32", (4, 4)), "w.scales": ("BF16", (4,))})
    config = {**QWEN3, "quantization": {"bits": 4, "group_size": 64}}
    found = read_checkpoint(write_checkpoint(tmp_path, config, model__safetensors=packed))
    assert (found.parameters, found.quantization) == (None, "mlx-4bit")


def test_templates_are_found_wherever_they_are(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"tokenizer_config__json": {}}
    several = [{"name": "default", "template": "x"}, {"name": "tool_use", "template": "{{ tools }}"}]
    for number, files in enumerate(
        (
            {**plain, "chat_template.jinja": "{{ tools }}"},
            {**plain, "chat_template.json": {"chat_template": "{{ tools }}"}},
            {"tokenizer_config__json": {"chat_template": several}},
        )
    ):
        found = read_checkpoint(write_checkpoint(tmp_path / str(number), **files))
        assert C.TOOL_USE in found.yes
    assert not read_checkpoint(write_checkpoint(tmp_path / "none", **plain)).has_chat_template


def test_files_are_read_up_to_their_limit(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    with (tmp_path / "tokenizer_config.json").open("wb") as file:
        file.truncate(MAX_JSON_BYTES + 1)
    assert read_checkpoint(tmp_path).problem == "tokenizer_config.json is larger than 32 MiB"


def test_a_broken_link_is_a_partial_download(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, model__safetensors=None, config__json=None)
    (tmp_path / "model.safetensors").symlink_to("nowhere")
    (tmp_path / "config.json").symlink_to("nowhere")
    assert read_checkpoint(tmp_path).problem == "partial download: config.json missing"


def test_a_folder_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "none").problem == "cannot be read: No such file or directory"


def test_memory_gives_the_same_object_until_the_folder_changes(tmp_path: Path) -> None:
    memory = CheckpointMemory()
    folder = write_checkpoint(tmp_path / "a")
    first = memory.read(folder)
    assert memory.read(folder) is first
    (folder / "config.json").write_text(json.dumps({**QWEN3, "max_position_embeddings": 4096}))
    assert memory.read(folder).context_length == 4096
    again = memory.read(folder)
    memory.keep_only(set())
    assert memory.read(folder) is not again


def test_a_download_that_goes_on_is_read_anew_each_time(tmp_path: Path) -> None:
    memory = CheckpointMemory()
    folder = write_checkpoint(tmp_path, model__safetensors=SMALL[:-1])
    assert memory.read(folder).problem is not None
    with (folder / "model.safetensors").open("ab") as file:
        file.write(SMALL[-1:])
    assert memory.read(folder).problem is None


# -- anything --------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
READ = """
architectures model_type text_config vision_config max_position_embeddings rope_scaling quantization factor
quantization_config num_hidden_layers num_attention_heads head_dim hidden_size layer_types sliding_window
id2label kv_lora_rank torch_dtype num_kv_shared_layers full_attention_interval thinker_config bits
attention_chunk_size no_rope_layers linear_attn_config conv_L_cache mamba_d_state qk_nope_head_dim v_head_dim
"""
KEYS = st.sampled_from(READ.split())


@given(st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON, max_size=4), max_size=8))
def test_any_config_is_interpreted(config: dict[str, Any]) -> None:
    found = facts(config)
    assert found.context_length is None or found.context_length > 0


@given(st.binary(max_size=64))
def test_any_bytes_are_read(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "config.json").write_bytes(content)
        (path / "model.safetensors").write_bytes(content)
        read_checkpoint(path)


def test_infinity_is_read_as_configurations_of_mamba_write_it(tmp_path: Path) -> None:
    text = json.dumps({**QWEN3, "time_step_limit": [0.0, float("inf")]})
    assert "Infinity" in text
    found = read_checkpoint(write_checkpoint(tmp_path, config__json=text))
    assert (found.problem, found.context_length) == (None, 2048)


def test_a_megabyte_of_garbage_is_a_named_problem_of_that_model(tmp_path: Path) -> None:
    for number, garbage in enumerate((b"\xff" * 2**20, b"[" * 2**20, b'{"a":' * 2**18, b"\0" * 2**20)):
        folder = write_checkpoint(tmp_path / str(number))
        (folder / "config.json").write_bytes(garbage)
        assert read_checkpoint(folder).problem == "config.json is not valid JSON"
