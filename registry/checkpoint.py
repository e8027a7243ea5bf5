"""What the files of a checkpoint say about the model. Pure: `registry.checkpoint_reader` reads the files.

Whatever is broken, missing or odd becomes a problem or an unknown, never an exception: a folder with one
bad model must not hide the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from registry.capability import Capability
from registry.chat_template import mentions_thinking, mentions_tools, template_features
from registry.footprint import KvShape
from registry.kv_shape import kv_shape
from registry.quantization import ELEMENT_BYTES, SHORT, dtype_of, packing_of
from registry.untrusted import Json, mapping_of, text_of, whole_of, words_of

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
    params: Json = field(default_factory=dict)
    """params.json of Mistral's own format, where it stands alone."""
    tokenizer_config: Json = field(default_factory=dict)
    chat_template: str | None = None
    modules: tuple[Json, ...] | None = None
    """modules.json of sentence-transformers; None when there is none."""
    sentence_config: Json = field(default_factory=dict)
    adapter_config: Json | None = None
    quant_config: Json = field(default_factory=dict)
    """hf_quant_config.json (ModelOpt) or quantize_config.json (old GPTQ)."""
    license: str | None = None
    """As the card's head says."""
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
    quantization_method: str | None = None
    """As engines name it: `compressed-tensors` where the word is `w4a16`."""
    mlx_quantized: bool = False
    """Its weights are packed as only the MLX engines read them."""
    weight_format: str | None = None
    architecture: str | None = None
    model_type: str | None = None
    dtype: str | None = None
    kv: KvShape | None = None
    has_chat_template: bool = False
    template: frozenset[str] | None = None
    """Words of `registry.chat_template.template_features`; None without a template."""
    license: str | None = None
    base_model: str | None = None
    """Of an adapter: the model it belongs to, as its training wrote it."""
    problem: str | None = None
    """Why it cannot be served at all."""

    @property
    def is_adapter(self) -> bool:
        """Not a model but a LoRA for one."""
        return self.base_model is not None


def interpret(files: CheckpointFiles) -> Checkpoint:
    """The facts in *files*."""
    config = files.config or _from_params(files.params)
    text = _text_config(config)
    architecture = _architecture(config)
    yes, no, certain = _capabilities(files, config, architecture)
    context, context_source = _context(files, text, "config.json" if files.config else "params.json")
    packing = packing_of(config, text, files.quant_config)
    dtype = dtype_of(config, text)
    weights = files.weights
    template = files.chat_template
    return Checkpoint(
        yes=yes,
        no=no,
        role_is_certain=certain,
        context_length=context,
        context_source=context_source,
        size_bytes=weights.size_bytes or None,
        parameters=weights.parameters or _parameters_by_size(weights, packing.word, dtype),
        quantization=packing.word or (SHORT.get(dtype or "") if config else None),
        quantization_method=packing.method,
        mlx_quantized=packing.is_mlx,
        weight_format=weights.format,
        architecture=architecture,
        model_type=text_of(config.get("model_type")) or text_of(text.get("model_type")),
        dtype=dtype,
        kv=None if _is_encoder(config, architecture) else kv_shape(text, dtype),
        has_chat_template=template is not None,
        template=None if template is None else template_features(template),
        license=files.license,
        base_model=_base_model(files),
        problem=_problem(files),
    )


def _problem(files: CheckpointFiles) -> str | None:
    base = _base_model(files)
    if base is not None:
        return f"a LoRA adapter and not a model: serve {base} with it"
    if "model_index.json" in files.names:
        return "a diffusers pipeline: no engine here serves it"
    if files.problems:
        return files.problems[0]
    if files.weights.problem:
        return files.weights.problem
    return None


def _base_model(files: CheckpointFiles) -> str | None:
    if files.adapter_config is None or files.config:
        return None
    return text_of(files.adapter_config.get("base_model_name_or_path")) or "its base model"


def _text_config(config: Json) -> Json:
    """The part that describes the language model: nested in multimodal checkpoints."""
    for key in ("text_config", "llm_config", "language_config", "thinker_config"):
        nested = mapping_of(config.get(key))
        if nested:
            deeper = mapping_of(nested.get("text_config"))
            return deeper or nested
    return config


def _architecture(config: Json) -> str | None:
    given = config.get("architectures")
    named = words_of(given)
    return (named[0] or None) if named else text_of(given)


_PARAMS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "max_seq_len": "max_position_embeddings",
    "max_position_embeddings": "max_position_embeddings",
    "vision_encoder": "vision_config",
    "sliding_window": "sliding_window",
}


def _from_params(params: Json) -> Json:
    """Mistral's own params.json under the names that everybody else uses."""
    if not params:
        return {}
    config = {name: params[key] for key, name in _PARAMS.items() if key in params}
    quantization = mapping_of(params.get("quantization"))
    weights = text_of(quantization.get("qformat_weight")) or ""
    packed = {"quantization_config": {"quant_method": "fp8"}} if weights.startswith("fp8") else {}
    audio = mapping_of(mapping_of(params.get("multimodal")).get("whisper_model_args"))
    heard = {"audio_config": audio} if audio else {}
    return {"architectures": ["MistralForCausalLM"], "model_type": "mistral", **config, **packed, **heard}


# -- capabilities ----------------------------------------------------------------------------------

_GENERATORS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ChatModel", "ForVision2Seq")
_CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification", "ClassificationModel")
_REWARDS = ("ForRewardModel", "ForRewardModeling", "RewardModel", "ForProcessRewardModel")
_EMBEDDERS = ("ForTextEncoding", "EmbeddingModel", "ForMaskedLM", "Model")
_ENCODER_TYPES = frozenset({
    "albert", "bert", "deberta-v2", "distilbert", "electra", "gte", "modernbert", "mpnet", "new",
    "nomic_bert", "roberta", "xlm-roberta",
})  # fmt: skip
_SPEECH = ("Whisper", "ASR", "SpeechEncoderDecoder", "ParakeetFor", "Moonshine")
_MODALITIES = frozenset({_C.VISION, _C.VIDEO, _C.AUDIO})
_POOLING = frozenset({_C.EMBED, _C.RERANK, _C.CLASSIFY})


def _is_encoder(config: Json, architecture: str | None) -> bool:
    """It keeps nothing between tokens: there are none."""
    return text_of(config.get("model_type")) in _ENCODER_TYPES or "Bert" in (architecture or "")


def _capabilities(
    files: CheckpointFiles, config: Json, architecture: str | None
) -> tuple[frozenset[Capability], frozenset[Capability], bool]:
    """(can, cannot, the role is certain)."""
    arch = architecture or ""
    if not config:
        return frozenset(), frozenset(), False
    if files.modules is not None:
        reranks = any(_ranks(text_of(module.get("type")) or "") for module in files.modules)
        return _pooling(_C.RERANK if reranks else _C.EMBED, config)
    if any(word in arch for word in _SPEECH):
        return frozenset({_C.TRANSCRIBE}), _all_but(_C.TRANSCRIBE), True
    if arch.endswith(_CLASSIFIERS):
        labels = len(mapping_of(config.get("id2label"))) or whole_of(config.get("num_labels")) or 2
        return _pooling(_C.RERANK if labels == 1 else _C.CLASSIFY, config)
    if arch.endswith(_REWARDS):
        return _pooling(_C.CLASSIFY, config)
    model_type = text_of(config.get("model_type")) or ""
    if arch.endswith(_GENERATORS) or (not arch and model_type not in _ENCODER_TYPES):
        return _generating(files, config)
    if arch.endswith(_EMBEDDERS) or model_type in _ENCODER_TYPES:
        return _pooling(_C.EMBED, config)
    return frozenset(), frozenset(), False


def _ranks(module: str) -> bool:
    """A module of sentence-transformers that scores pairs."""
    return "CrossEncoder" in module or module.endswith("LogitScore")


def _all_but(role: Capability) -> frozenset[Capability]:
    return frozenset(Capability) - {role}


def _pooling(role: Capability, config: Json) -> tuple[frozenset[Capability], frozenset[Capability], bool]:
    sees = _modalities(config) & {_C.VISION}
    return frozenset({role}) | sees, frozenset(Capability) - {role, _C.VISION, *_POOLING}, True


def _generating(
    files: CheckpointFiles, config: Json
) -> tuple[frozenset[Capability], frozenset[Capability], bool]:
    seen = _modalities(config)
    yes = {_C.GENERATE} | seen
    no = set(_MODALITIES - seen)
    template = files.chat_template
    if template is not None:
        (yes if mentions_tools(template) else no).add(_C.TOOL_USE)
        thinks = mentions_thinking(template)
        if thinks is not None:
            (yes if thinks else no).add(_C.REASONING)
    return frozenset(yes), frozenset(no), False


_TOWERS = (
    "vision_config", "visual", "vision_tower", "mm_vision_tower", "vision_encoder", "img_processor",
    "embd_layer",
)  # fmt: skip
_EARS = ("audio_config", "audio_encoder", "speech_config", "audio_processor")
_FILMS = ("video_token_id", "video_token_index", "video_placeholder")


def _modalities(config: Json) -> frozenset[Capability]:
    thinker = mapping_of(config.get("thinker_config"))
    found: set[Capability] = set()
    for part in (config, thinker):
        if any(part.get(key) for key in _TOWERS):
            found.add(_C.VISION)
        if any(part.get(key) for key in _EARS):
            found.add(_C.AUDIO)
        elif part.get("audio_token_id") is not None and part.get("audio_config", 0) is not None:
            # The larger Gemma 4 keep the token and say that there is nothing to hear it with.
            found.add(_C.AUDIO)
        if any(part.get(key) is not None for key in _FILMS):
            found.add(_C.VIDEO)
    if _C.VIDEO in found and _C.VISION not in found:
        # Text-only conversions keep the token but drop the tower.
        found.discard(_C.VIDEO)
    return frozenset(found)


# -- context ---------------------------------------------------------------------------------------

_CONTEXT_KEYS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length",
    "max_seq_length", "seq_len", "n_ctx", "max_target_positions",
)  # fmt: skip
_UNSCALED_ROPE = ("su", "longrope", "llama3", "default", "mrope")
_OFFSET_TYPES = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")


def _context(files: CheckpointFiles, text: Json, file: str) -> tuple[int | None, str]:
    """(tokens, where it is said). vLLM's rule: the smallest key, scaled by RoPE, bounded by the others."""
    said = [(value, key) for key in _CONTEXT_KEYS if (value := whole_of(text.get(key))) is not None]
    context, source = min(said) if said else (None, "")
    if (override := whole_of(text.get("model_max_length"))) is not None:
        return override, f"{file} model_max_length"  # Cohere's: trained shorter than it is served
    if context is not None:
        source = f"{file} {source}"
        scaled = _scaled(context, text)
        if scaled != context:
            context, source = scaled, f"{source} and RoPE scaling"
        if text_of(text.get("model_type")) in _OFFSET_TYPES:
            # Positions start after the padding token: 514 rows are 512 tokens.
            context -= (whole_of(text.get("pad_token_id")) or 0) + 1
    for limit, name in (
        (whole_of(files.sentence_config.get("max_seq_length")), "sentence_bert_config.json max_seq_length"),
        (whole_of(files.tokenizer_config.get("model_max_length")), "tokenizer_config.json model_max_length"),
    ):
        if limit is not None and (context is None or limit < context):
            context, source = limit, name
    return (context, source) if context and context > 0 else (None, "")


def _scaled(context: int, text: Json) -> int:
    if "gemma" in (text_of(text.get("model_type")) or ""):
        return context  # its max_position_embeddings includes the factor already
    rope = mapping_of(text.get("rope_scaling")) or mapping_of(text.get("rope_parameters"))
    # Where layers differ there is one set of numbers per kind of layer.
    rope = mapping_of(rope.get("full_attention")) or rope
    kind = text_of(rope.get("rope_type")) or text_of(rope.get("type")) or "default"
    factor = rope.get("factor")
    if kind in _UNSCALED_ROPE or isinstance(factor, bool) or not isinstance(factor, int | float):
        return context
    original = whole_of(rope.get("original_max_position_embeddings")) if kind == "yarn" else None
    # Some checkpoints already say the scaled length: never less than what is written.
    scaled = (original or context) * factor
    return max(context, int(scaled)) if scaled < 10**9 else context


def _parameters_by_size(weights: Weights, quantization: str | None, dtype: str | None) -> int | None:
    if quantization is not None or weights.format is None or dtype not in ELEMENT_BYTES:
        return None
    return weights.size_bytes // ELEMENT_BYTES[dtype] or None
