"""What the files of a checkpoint say about the model. Pure: `registry.checkpoint_reader` reads the files.

Whatever is broken, missing or odd becomes a problem or an unknown, never an exception: a folder with one
bad model must not hide the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.capability import Capability
from registry.footprint import KvShape

Json = Mapping[str, Any]

_C = Capability


@dataclass(frozen=True, slots=True)
class Weights:
    """The weight files: which format, how many bytes, what is wrong with them."""

    format: str | None = None
    """`safetensors`, `bin` (PyTorch), `gguf`; None without any."""
    size_bytes: int = 0
    parameters: int | None = None
    """Counted in the safetensors header or given by the index."""
    problem: str | None = None
    """`partial download: model-00002-of-00004.safetensors missing` …"""


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The parsed files of a folder; a file that is not there or not usable is an empty mapping."""

    names: frozenset[str] = frozenset()
    """Names of the entries of the folder."""
    config: Json = field(default_factory=dict)
    tokenizer_config: Json = field(default_factory=dict)
    chat_template: str | None = None
    generation_config: Json = field(default_factory=dict)
    modules: tuple[Json, ...] | None = None
    """modules.json of sentence-transformers; None when there is none."""
    sentence_config: Json = field(default_factory=dict)
    preprocessor: Json = field(default_factory=dict)
    adapter_config: Json | None = None
    quant_config: Json = field(default_factory=dict)
    """hf_quant_config.json (ModelOpt) or quantize_config.json (old GPTQ)."""
    weights: Weights = Weights()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Facts of a checkpoint; None is unknown."""

    yes: frozenset[Capability] = frozenset()
    """What the files show that it can do."""
    no: frozenset[Capability] = frozenset()
    """What the files show that it cannot do; the name may speak for the rest."""
    role_is_certain: bool = False
    """False where the architecture alone says `generate`: rerankers and embedders use the same classes."""
    context_length: int | None = None
    context_source: str = ""
    size_bytes: int | None = None
    parameters: int | None = None
    quantization: str | None = None
    mlx_quantized: bool = False
    """Its weights are packed as only the MLX engines read them."""
    weight_format: str | None = None
    architecture: str | None = None
    model_type: str | None = None
    dtype: str | None = None
    kv: KvShape | None = None
    has_chat_template: bool = False
    problem: str | None = None
    """Why it cannot be served at all."""


def interpret(files: CheckpointFiles) -> Checkpoint:
    """The facts in *files*."""
    config = files.config
    text = _text_config(config)
    architecture = _architecture(config)
    yes, no, certain = _capabilities(files, architecture)
    context, context_source = _context(files, text)
    quantization, mlx = _quantization(files, text)
    dtype = _dtype(config, text)
    weights = files.weights
    return Checkpoint(
        yes=yes,
        no=no,
        role_is_certain=certain,
        context_length=context,
        context_source=context_source,
        size_bytes=weights.size_bytes or None,
        parameters=weights.parameters or _parameters_by_size(weights, quantization, dtype),
        quantization=quantization or (_SHORT.get(dtype or "") if config else None),
        mlx_quantized=mlx,
        weight_format=weights.format,
        architecture=architecture,
        model_type=_text(config.get("model_type")) or _text(text.get("model_type")),
        dtype=dtype,
        kv=_kv_shape(text, dtype),
        has_chat_template=files.chat_template is not None,
        problem=_problem(files),
    )


def _problem(files: CheckpointFiles) -> str | None:
    if files.adapter_config is not None and not files.config:
        base = _text(files.adapter_config.get("base_model_name_or_path")) or "its base model"
        return f"a LoRA adapter and not a model: serve {base} with it"
    if "model_index.json" in files.names:
        return "a diffusers pipeline: no engine here serves it"
    if files.problems:
        return files.problems[0]
    if files.weights.problem:
        return files.weights.problem
    return None


# -- small readers of untrusted JSON ---------------------------------------------------------------


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: object) -> int | None:
    # Tokenizers write 1e30 for "no limit"; booleans are ints in Python.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 10**9:
        return None
    return int(value)


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _first(source: Json, *keys: str) -> int | None:
    return next((value for key in keys if (value := _whole(source.get(key))) is not None), None)


def _text_config(config: Json) -> Json:
    """The part that describes the language model: nested in multimodal checkpoints."""
    for key in ("text_config", "llm_config", "language_config", "thinker_config"):
        nested = _mapping(config.get(key))
        if nested:
            deeper = _mapping(nested.get("text_config"))
            return deeper or nested
    return config


def _architecture(config: Json) -> str | None:
    given = config.get("architectures")
    if isinstance(given, list) and given:
        return _text(given[0])
    return _text(given)


# -- capabilities ----------------------------------------------------------------------------------

_GENERATORS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ChatModel", "ForVision2Seq")
_CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification", "ClassificationModel")
_REWARDS = ("ForRewardModel", "ForRewardModeling", "RewardModel")
_EMBEDDERS = ("ForTextEncoding", "EmbeddingModel", "ForMaskedLM", "Model")
_ENCODER_TYPES = frozenset({
    "albert", "bert", "deberta-v2", "distilbert", "electra", "gte", "modernbert", "mpnet", "new",
    "nomic_bert", "roberta", "xlm-roberta",
})  # fmt: skip
_SPEECH = ("Whisper", "ASR", "SpeechEncoderDecoder", "ParakeetFor")
_MODALITIES = frozenset({_C.VISION, _C.VIDEO, _C.AUDIO})
_POOLING = frozenset({_C.EMBED, _C.RERANK, _C.CLASSIFY})


def _capabilities(
    files: CheckpointFiles, architecture: str | None
) -> tuple[frozenset[Capability], frozenset[Capability], bool]:
    """(can, cannot, the role is certain)."""
    config, arch = files.config, architecture or ""
    if not config:
        return frozenset(), frozenset(), False
    if files.modules is not None:
        cross = any("CrossEncoder" in str(module.get("type", "")) for module in files.modules)
        return _pooling(_C.RERANK if cross else _C.EMBED, config)
    if any(word in arch for word in _SPEECH):
        return frozenset({_C.TRANSCRIBE}), _all_but(_C.TRANSCRIBE), True
    if arch.endswith(_CLASSIFIERS):
        labels = len(_mapping(config.get("id2label"))) or _whole(config.get("num_labels")) or 2
        return _pooling(_C.RERANK if labels == 1 else _C.CLASSIFY, config)
    if arch.endswith(_REWARDS):
        return _pooling(_C.CLASSIFY, config)
    model_type = _text(config.get("model_type")) or ""
    if arch.endswith(_GENERATORS) or (not arch and model_type not in _ENCODER_TYPES):
        return _generating(files)
    if arch.endswith(_EMBEDDERS) or model_type in _ENCODER_TYPES:
        return _pooling(_C.EMBED, config)
    return frozenset(), frozenset(), False


def _all_but(role: Capability) -> frozenset[Capability]:
    return frozenset(Capability) - {role}


def _pooling(role: Capability, config: Json) -> tuple[frozenset[Capability], frozenset[Capability], bool]:
    sees = _modalities(config) & {_C.VISION}
    return frozenset({role}) | sees, frozenset(Capability) - {role, _C.VISION, *_POOLING}, True


def _generating(files: CheckpointFiles) -> tuple[frozenset[Capability], frozenset[Capability], bool]:
    seen = _modalities(files.config)
    yes = {_C.GENERATE} | seen
    no = set(_MODALITIES - seen)
    template = files.chat_template
    if template is not None:
        (yes if mentions_tools(template) else no).add(_C.TOOL_USE)
        thinks = mentions_thinking(template)
        if thinks is not None:
            (yes if thinks else no).add(_C.REASONING)
    return frozenset(yes), frozenset(no), False


def _modalities(config: Json) -> frozenset[Capability]:
    thinker = _mapping(config.get("thinker_config"))
    found: set[Capability] = set()
    for part in (config, thinker):
        if any(part.get(key) for key in ("vision_config", "visual", "vision_tower", "mm_vision_tower")):
            found.add(_C.VISION)
        if part.get("audio_config") or part.get("audio_token_id") is not None:
            found.add(_C.AUDIO)
        if part.get("video_token_id") is not None or part.get("video_token_index") is not None:
            found.add(_C.VIDEO)
    if _C.VIDEO in found and _C.VISION not in found:
        # Text-only conversions keep the token but drop the tower.
        found.discard(_C.VIDEO)
    return frozenset(found)


def mentions_tools(template: str) -> bool:
    """True when a chat template can put tool definitions into the prompt."""
    return "tools" in template or "[AVAILABLE_TOOLS]" in template


_THINKING = (
    "enable_thinking",
    "reasoning_effort",
    "<|channel",
    "[THINK]",
    "thinking_budget",
    "thinking_mode",
)


def mentions_thinking(template: str) -> bool | None:
    """Whether a chat template makes the model think; None where it cannot be told.

    `<think>` alone proves nothing: templates of models that never think strip it out of the history.
    """
    if any(word in template for word in _THINKING):
        return True
    if "<think>" not in template and "thinking" not in template:
        return False
    prompt = template.rpartition("add_generation_prompt")[2]
    return True if "<think>\\n" in prompt or "<think>\n" in prompt else None


# -- context ---------------------------------------------------------------------------------------

_CONTEXT_KEYS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length",
    "max_seq_length", "seq_len", "n_ctx", "max_target_positions",
)  # fmt: skip
_UNSCALED_ROPE = ("su", "longrope", "llama3", "default", "mrope")
_OFFSET_TYPES = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")


def _context(files: CheckpointFiles, text: Json) -> tuple[int | None, str]:
    """(tokens, where it is said). vLLM's rule: the smallest key, scaled by RoPE, bounded by the others."""
    said = [(value, key) for key in _CONTEXT_KEYS if (value := _whole(text.get(key))) is not None]
    context, source = min(said) if said else (None, "")
    if context is not None:
        source = f"config.json {source}"
        scaled = _scaled(context, text)
        if scaled != context:
            context, source = scaled, f"{source} and RoPE scaling"
        if _text(text.get("model_type")) in _OFFSET_TYPES:
            # Positions start after the padding token: 514 rows are 512 tokens.
            context -= (_whole(text.get("pad_token_id")) or 0) + 1
    for limit, name in (
        (_whole(files.sentence_config.get("max_seq_length")), "sentence_bert_config.json max_seq_length"),
        (_whole(files.tokenizer_config.get("model_max_length")), "tokenizer_config.json model_max_length"),
    ):
        if limit is not None and (context is None or limit < context):
            context, source = limit, name
    return (context, source) if context and context > 0 else (None, "")


def _scaled(context: int, text: Json) -> int:
    if "gemma" in (_text(text.get("model_type")) or ""):
        return context  # its max_position_embeddings includes the factor already
    rope = _mapping(text.get("rope_scaling")) or _mapping(text.get("rope_parameters"))
    kind = _text(rope.get("rope_type")) or _text(rope.get("type")) or "default"
    factor = rope.get("factor")
    if kind in _UNSCALED_ROPE or isinstance(factor, bool) or not isinstance(factor, int | float):
        return context
    original = _whole(rope.get("original_max_position_embeddings")) if kind == "yarn" else None
    # Some checkpoints already say the scaled length: never less than what is written.
    scaled = (original or context) * factor
    return max(context, int(scaled)) if scaled < 10**9 else context


# -- quantization ----------------------------------------------------------------------------------

_SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float8_e4m3fn": "fp8"}
_ELEMENT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float8_e4m3fn": 1}


def _dtype(config: Json, text: Json) -> str | None:
    for source in (config, text):
        for key in ("dtype", "torch_dtype"):
            if found := _text(source.get(key)):
                return found.removeprefix("torch.")
    return None


def _quantization(files: CheckpointFiles, text: Json) -> tuple[str | None, bool]:
    """(a word such as `awq-4bit`, the MLX layout)."""
    config = files.config
    mlx = _mapping(config.get("quantization")) or _mapping(text.get("quantization"))
    if mlx.get("bits") or mlx.get("mode"):
        mode = _text(mlx.get("mode")) or "affine"
        return (f"mlx-{mode}" if mode != "affine" else f"mlx-{_whole(mlx.get('bits'))}bit"), True
    given = (
        _mapping(config.get("quantization_config"))
        or _mapping(text.get("quantization_config"))
        or _mapping(config.get("compression_config"))
        or files.quant_config
    )
    if not given:
        return None, False
    nested = _mapping(given.get("quantization")) or given
    method = _text(given.get("quant_method"))
    algorithm = _text(nested.get("quant_algo"))
    if method is None and algorithm is None:
        bits = _whole(given.get("bits"))
        # MLX writes its settings under both names, the second one without a method.
        if bits is not None and "group_size" in given:
            return (f"gptq-{bits}bit", False) if "desc_act" in given else (f"mlx-{bits}bit", True)
        return None, False
    if algorithm is not None:
        return algorithm.lower(), False
    bits = _whole(given.get("bits")) or _whole(given.get("w_bit"))
    if method == "bitsandbytes":
        bits = 4 if given.get("load_in_4bit") else 8
    return (f"{method}-{bits}bit" if bits else method), False


def _parameters_by_size(weights: Weights, quantization: str | None, dtype: str | None) -> int | None:
    if quantization is not None or weights.format is None or dtype not in _ELEMENT_BYTES:
        return None
    return weights.size_bytes // _ELEMENT_BYTES[dtype] or None


# -- attention cache -------------------------------------------------------------------------------


def _kv_shape(text: Json, dtype: str | None) -> KvShape | None:
    layers = _first(text, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    heads = _first(text, "num_attention_heads", "n_head", "n_heads")
    if layers is None or heads is None:
        return None
    value_bytes = min(_ELEMENT_BYTES.get(dtype or "", 2), 4)
    latent = _whole(text.get("kv_lora_rank"))
    if latent is not None:
        rope = _whole(text.get("qk_rope_head_dim")) or 0
        return KvShape(layers, 1, 0, value_bytes, latent=latent + rope)
    kv_heads = _first(text, "num_key_value_heads", "n_head_kv", "num_kv_heads") or heads
    if text.get("multi_query") is True:
        kv_heads = 1
    hidden = _first(text, "hidden_size", "n_embd", "d_model") or 0
    head_dim = _whole(text.get("head_dim")) or hidden // heads
    if head_dim == 0:
        return None
    full, sliding = _layer_kinds(text, layers)
    return KvShape(
        full_layers=full,
        kv_heads=kv_heads,
        head_dim=head_dim,
        value_bytes=value_bytes,
        sliding_layers=sliding,
        window=_whole(text.get("sliding_window")) or 0,
    )


def _layer_kinds(text: Json, layers: int) -> tuple[int, int]:
    """(layers with full attention, layers with a sliding window); linear layers are neither."""
    shared = _whole(text.get("num_kv_shared_layers")) or 0
    kinds = text.get("layer_types")
    if isinstance(kinds, list) and kinds:
        own = kinds[: max(len(kinds) - shared, 0)]
        return own.count("full_attention"), own.count("sliding_attention")
    interval = _whole(text.get("full_attention_interval"))
    if interval:
        return layers // interval, 0
    attention = text.get("attn_layer_indices")
    if isinstance(attention, list) and attention:
        return len(attention), 0
    pattern = _whole(text.get("sliding_window_pattern"))
    if pattern and _whole(text.get("sliding_window")):
        return layers // pattern, layers - layers // pattern
    if _whole(text.get("sliding_window")) and text.get("use_sliding_window", True) is True:
        # Mistral v0.1: every layer slides.
        return (0, layers) if _text(text.get("model_type")) == "mistral" else (layers, 0)
    return layers, 0
