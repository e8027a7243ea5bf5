"""Architectures that vLLM once had, with the last version that did, as vLLM 0.32 answers for them.

Without those that Transformers has a class for (Persimmon, Fuyu, Bamba …): vLLM may run them by that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_UNTIL: Mapping[str, tuple[str, ...]] = {
    "0.9.2": (
        "Phi3SmallForCausalLM",
    ),
    "0.10.2": (
        "MotifForCausalLM", "Phi4FlashForCausalLM", "DonutForConditionalGeneration",
        "MllamaForConditionalGeneration",
    ),
    "0.22.0": (
        "JAISLMHeadModel",
    ),
    "0.23.0": (
        "InternLM2VEForCausalLM", "QWenLMHeadModel", "QwenVLForConditionalGeneration",
        "InternLMForCausalLM", "XverseForCausalLM", "MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM",
        "MiniMaxVL01ForConditionalGeneration", "BaiChuanForCausalLM", "BaichuanForCausalLM",
        "Tarsier2ForConditionalGeneration",
    ),
    "0.24.0": (
        "AquilaModel", "AquilaForCausalLM", "Grok1ModelForCausalLM", "Grok1ForCausalLM",
        "TarsierForConditionalGeneration", "MantisForConditionalGeneration",
    ),
    "0.25.0": (
        "TeleChatForCausalLM",
    ),
    "0.26.0": (
        "Plamo2ForCausalLM", "OuroForCausalLM",
    ),
    "0.28.0": (
        "ArcticForCausalLM", "Cheers", "CheersForConditionalGeneration", "Fairseq2LlamaForCausalLM",
        "FireRedLIDForConditionalGeneration", "GritLM", "HCXVisionForCausalLM", "MPTForCausalLM",
        "RWForCausalLM", "StableLMEpochForCausalLM", "PrithviGeoSpatialMAE",
    ),
}  # fmt: skip

DROPPED: Final = {name: version for version, names in _UNTIL.items() for name in names}
