"""What cannot be cut safely, and why: told from config.json alone, before anything is queued or read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

Config = Mapping[str, Any]
_ADAPTER = "adapter_config.json"

_STATE_SPACE = frozenset({
    "mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm", "jamba", "bamba", "zamba", "zamba2", "falcon_h1", "nemotron_h",
    "recurrent_gemma", "granitemoehybrid", "lfm2", "lfm2_moe", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text",
    "kimi_linear", "minimax", "plamo2", "olmo_hybrid",
})  # fmt: skip
_ATTENTION_TYPES = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
_PER_LAYER_INPUT = ("hidden_size_per_layer_input", "vocab_size_per_layer_input")


def family_refusal(config: Config) -> str | None:
    """Say why a model's whole family cannot be worked with, or None where nothing in the config speaks against it."""
    model_type = config.get("model_type")
    for name in ("text_config", "llm_config", "language_config"):
        text = config.get(name)
        if isinstance(text, Mapping):
            inner = text.get("model_type")
            which = f" (model_type {inner})" if isinstance(inner, str) else ""
            return f"it wraps a text model in a multimodal one; import the text model by itself{which}"
    if config.get("is_encoder_decoder") is True:
        return "it is an encoder-decoder, and only the layers of a decoder without an encoder can be cut"
    if isinstance(model_type, str) and model_type in _STATE_SPACE:
        return "some of its layers keep a recurrent state instead of attention, which is not proven to survive a cut"
    return None


def model_refusal(config: Config) -> str | None:
    """Say why this model of a supported family cannot be cut, and what would work; None where it can."""
    for refuse in (_quantised, _shared, _numbered, _recurrent):
        if reason := refuse(config):
            return reason
    return None


def adapter_refusal(files: Collection[str]) -> str | None:
    """Say why a directory of these files is no model, or None: an adapter's configuration makes libraries load another.

    Transformers takes the directory that the file names as the base in place of this one, wherever that lies.
    """
    if _ADAPTER not in files:
        return None
    return (
        f"an adapter lies beside it ({_ADAPTER}), and libraries would load the model that it names in place of this "
        "one; merge the adapter into the model (merge_and_unload), or take its files away"
    )


def _quantised(config: Config) -> str | None:
    quantisation = config.get("quantization_config")
    if not quantisation:
        return None
    method = quantisation.get("quant_method") if isinstance(quantisation, Mapping) else None
    return (
        f"its weights are quantised and packed (quantization_config: {method or 'unknown'}); import the original in "
        "float32, float16 or bfloat16, compress that, and quantise the result"
    )


def _shared(config: Config) -> str | None:
    if shared := config.get("num_kv_shared_layers"):
        return (
            f"its last {shared} layers read keys and values of earlier ones (num_kv_shared_layers), which a cut would "
            "take away; use a model in which every layer has its own"
        )
    if any(config.get(name) for name in _PER_LAYER_INPUT):
        return "one tensor holds embeddings for every layer (hidden_size_per_layer_input), so that layers cannot go"
    if config.get("use_cla") or (config.get("cla_share_factor") or 1) != 1:
        return "its layers share keys and values in groups (use_cla); use a model in which every layer has its own"
    return None


def _numbered(config: Config) -> str | None:
    if config.get("scale_attn_by_inverse_layer_idx"):
        return (
            "each layer divides its attention by its own number (scale_attn_by_inverse_layer_idx), so that a layer "
            "computes something else in another place"
        )
    return None


def _recurrent(config: Config) -> str | None:
    types = config.get("layer_types")
    strange = sorted({str(entry) for entry in types} - _ATTENTION_TYPES) if isinstance(types, list) else []
    if strange:
        return f"its layer_types hold {', '.join(strange)}, and only layers with attention can be cut"
    return None
