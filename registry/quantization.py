"""How a checkpoint's weights are packed, from all the places where configurations say it. Pure.

The word is what operators know (`mlx-4bit`, `awq-4bit`, `fp8`, `w4a16`); the method is what engines ask for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from registry.untrusted import Json, mapping_of, text_of, whole_of

SHORT: Final = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float8_e4m3fn": "fp8"}
ELEMENT_BYTES: Final = {"bfloat16": 2, "float16": 2, "float32": 4, "float8_e4m3fn": 1}


@dataclass(frozen=True, slots=True)
class Packing:
    """How weights are stored; nothing known is all None."""

    word: str | None = None
    method: str | None = None
    """`awq`, `compressed-tensors`, `mlx` …"""
    is_mlx: bool = False
    """Packed as only the MLX engines read it."""


def dtype_of(config: Json, text: Json) -> str | None:
    """`bfloat16`, under the old name or the new one, at the top or with the language model."""
    for source in (config, text):
        for key in ("dtype", "torch_dtype"):
            if found := text_of(source.get(key)):
                return found.removeprefix("torch.")
    return None


def packing_of(config: Json, text: Json, beside: Json) -> Packing:
    """What config.json says, at the top or with the language model, else the file *beside* it.

    That is hf_quant_config.json of ModelOpt or quantize_config.json of the old GPTQ.
    """
    mlx = mapping_of(config.get("quantization")) or mapping_of(text.get("quantization"))
    if mlx.get("bits") or mlx.get("mode"):
        return _mlx(mlx)
    given = (
        mapping_of(config.get("quantization_config"))
        or mapping_of(text.get("quantization_config"))
        or mapping_of(config.get("compression_config"))
        or beside
    )
    if not given:
        return Packing()
    method = text_of(given.get("quant_method"))
    nested = mapping_of(given.get("quantization")) or given
    algorithm = text_of(nested.get("quant_algo"))
    if algorithm is not None:
        return Packing(_model_opt(algorithm.lower(), nested), method or "modelopt")
    if method is None:
        return _without_method(given)
    if method == "compressed-tensors":
        return Packing(_compressed(given) or method, method)
    if method == "fp8" and text_of(config.get("expert_dtype")) == "fp4":
        return Packing("fp4+fp8", method)
    bits = whole_of(given.get("bits")) or whole_of(given.get("w_bit"))
    if method == "bitsandbytes":
        bits = 4 if given.get("load_in_4bit") else 8
    return Packing(f"{method}-{bits}bit" if bits else method, method)


def _mlx(given: Json) -> Packing:
    mode = text_of(given.get("mode")) or "affine"
    word = f"mlx-{mode}" if mode != "affine" else f"mlx-{whole_of(given.get('bits'))}bit"
    return Packing(word, "mlx", is_mlx=True)


def _model_opt(algorithm: str, given: Json) -> str:
    """The word for an algorithm of ModelOpt; of several the finest, which has most of the weights."""
    layers = mapping_of(given.get("quantized_layers")).values() if algorithm == "mixed_precision" else ()
    mixed = {(text_of(mapping_of(layer).get("quant_algo")) or "").lower() for layer in layers}
    if any("nvfp4" in name for name in (algorithm, *mixed)):
        return "nvfp4"
    return algorithm


def _without_method(given: Json) -> Packing:
    bits = whole_of(given.get("bits"))
    if bits is not None and "group_size" in given:
        # MLX writes its settings under both names, the second one without a method; GPTQ says desc_act.
        return Packing(f"gptq-{bits}bit", "gptq") if "desc_act" in given else _mlx(given)
    return Packing()


def _compressed(given: Json) -> str | None:
    """`fp8`, `w4a16`, `w8a8`, `nvfp4`: what the first group of compressed-tensors does."""
    layout = text_of(given.get("format")) or ""
    if layout.startswith(("nvfp4", "mxfp4")):
        return layout.partition("-")[0]
    groups = [mapping_of(group) for group in mapping_of(given.get("config_groups")).values()]
    weights = mapping_of(groups[0].get("weights")) if groups else {}
    bits = whole_of(weights.get("num_bits"))
    if bits is None:
        return None
    if text_of(weights.get("type")) == "float":
        return f"fp{bits}"
    activations = whole_of(mapping_of(groups[0].get("input_activations")).get("num_bits")) or 16
    return f"w{bits}a{activations}"


def alike(one: str, other: str) -> bool:
    """Two words for the same packing: `awq-int4` and `awq-4bit`, `bnb-4bit` and `bitsandbytes-4bit`."""
    return _stem(one) == _stem(other)


def _stem(word: str) -> str:
    stem = word.partition("-")[0]
    return {"bitsandbytes": "bnb", "auto": "autoround"}.get(stem, stem)
