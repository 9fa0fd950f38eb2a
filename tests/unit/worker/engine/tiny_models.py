"""Tiny random models of every supported family, written to disk as anyone would save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from app.core.architectures import FAMILIES, Family, ffn_tensors, layer_tensors, linear_tensors, mlp_half_tensors
from app.core.family_table import DISCOVERED

LAYERS = 5
VOCABULARY = 64

_COMMON = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": LAYERS,
           "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}  # fmt: skip
_GATED = {"intermediate_size": 24, "num_key_value_heads": 1, "head_dim": 8}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**_COMMON, **_GATED},
    "mistral": {**_COMMON, **_GATED, "sliding_window": 32},
    "qwen2": {**_COMMON, "intermediate_size": 24, "num_key_value_heads": 1},
    "qwen3": {**_COMMON, **_GATED},
    "opt": {**_COMMON, "ffn_dim": 64, "word_embed_proj_dim": 16},
    "gpt_neox": {**_COMMON, "intermediate_size": 64},
}

_SANDWICH = {**_COMMON, **_GATED, "sliding_window": 6, "query_pre_attn_scalar": 8}
_EXPERTS = {**_COMMON, **_GATED, "num_experts_per_tok": 2}
_LATENT = {
    **_COMMON, "intermediate_size": 24, "moe_intermediate_size": 12, "num_key_value_heads": 2, "kv_lora_rank": 8,
    "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 4,
    "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 2,
}  # fmt: skip
FURTHER: dict[str, dict[str, Any]] = {
    "gemma": {**_COMMON, **_GATED},
    "gemma2": _SANDWICH,
    "gemma3_text": {**_SANDWICH, "sliding_window_pattern": 3},
    "phi3": {**_COMMON, **_GATED, "original_max_position_embeddings": 64},
    "gpt2": {"vocab_size": VOCABULARY, "n_embd": 16, "n_head": 2, "n_layer": LAYERS, "n_positions": 64,
             "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1},
    "falcon": _COMMON,
    "starcoder2": {**_COMMON, "intermediate_size": 64, "num_key_value_heads": 1},
    "olmo2": {**_COMMON, "intermediate_size": 24, "num_key_value_heads": 1},
    "granite": {**_COMMON, "intermediate_size": 24, "num_key_value_heads": 1, "residual_multiplier": 0.5,
                "logits_scaling": 2.0, "embedding_multiplier": 3.0, "attention_multiplier": 0.3},
    "cohere": {**_COMMON, "intermediate_size": 24, "num_key_value_heads": 1, "use_qk_norm": True, "logit_scale": 0.5},
    "cohere2": {**_COMMON, "intermediate_size": 24, "num_key_value_heads": 1, "sliding_window": 6, "logit_scale": 0.5},
    "olmo3": {**_COMMON, **_GATED, "sliding_window": 6},
    "exaone4": {**_COMMON, **_GATED, "sliding_window": 6},
    "smollm3": {**_COMMON, **_GATED, "no_rope_layer_interval": 2},
    "ministral": {**_COMMON, **_GATED, "sliding_window": 6},
    "mixtral": {**_EXPERTS, "num_local_experts": 4},
    "llama4_text": {**_EXPERTS, "num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 32,
                    "interleave_moe_layer_step": 2, "no_rope_layer_interval": 2, "attention_chunk_size": 6},
    "qwen3_moe": {**_EXPERTS, "moe_intermediate_size": 12, "num_experts": 4, "decoder_sparse_step": 2,
                  "mlp_only_layers": [3]},
    "deepseek_v2": {**_LATENT, "n_group": 1, "topk_group": 1},
    "deepseek_v3": {**_LATENT, "n_group": 2, "topk_group": 1},
    "gpt_oss": {**_EXPERTS, "num_local_experts": 4, "sliding_window": 6,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
}  # fmt: skip
_OLD = {"vocab_size": VOCABULARY, "n_embd": 16, "n_head": 2, "n_layer": LAYERS, "n_positions": 64,
        "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}  # fmt: skip
_ORDINARY = {**_COMMON, **_GATED}
DISCOVERED_ALONE: dict[str, dict[str, Any]] = {
    **{name: _ORDINARY for name in DISCOVERED if name not in FURTHER},
    "qwen2_moe": {**_EXPERTS, "num_experts": 4, "moe_intermediate_size": 12, "shared_expert_intermediate_size": 12},
    "olmoe": {**_EXPERTS, "num_experts": 4},
    "flex_olmo": {**_EXPERTS, "num_experts": 4},
    "granitemoe": {**_EXPERTS, "num_local_experts": 4},
    "phimoe": {**_EXPERTS, "num_local_experts": 4},
    "dots1": {**_LATENT, "n_group": 1, "topk_group": 1},
    "glm4_moe": {**_LATENT, "n_group": 1, "topk_group": 1},
    "gptj": {**_OLD, "rotary_dim": 4},
    "gpt_bigcode": _OLD,
}
"""Families that need no entry in the table."""


def make_config(model_type: str, **changes: Any) -> Any:
    return AutoConfig.for_model(model_type, **{**CONFIGS, **FURTHER, **DISCOVERED_ALONE}[model_type] | changes)


def save_model(
    directory: Path,
    model_type: str,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int | str = "5GB",
    **changes: Any,
) -> Path:
    """Save a random model and a tokenizer; weights are large enough that greedy continuations are not constant."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(make_config(model_type, **changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.2 if "norm" in name else 0.35
            parameter.add_(torch.randn_like(parameter) * spread)
    model.to(dtype).save_pretrained(directory, max_shard_size=shard_bytes)
    save_tokenizer(directory)
    return directory


def save_tokenizer(directory: Path) -> None:
    words = {"<s>": 0, "<pad>": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>", pad_token="<pad>")
    fast.chat_template = "{{ messages }}"
    fast.save_pretrained(directory)


def down_tensors(config: Any) -> dict[str, tuple[int, ...]]:
    down = f"{FAMILIES[config['model_type']].mlp_down}."
    return {name: shape for name, shape in layer_tensors(config).items() if name.startswith(down)}


SHAPES = {
    "layer": layer_tensors, "swiglu": mlp_half_tensors, "ffn": ffn_tensors, "linear_residual": linear_tensors,
    "linear_merged": down_tensors,
}  # fmt: skip


def random_replacement(config: Any, kind: str, *, seed: int = 1, layers: int = 1) -> dict[str, torch.Tensor]:
    """Tensors with the names and shapes that a trained block of `kind` has; empty for `none`."""
    if kind == "none":
        return {}
    shapes = SHAPES[kind](config)
    if layers > 1:
        shapes = {f"{i}.{name}": shape for i in range(layers) for name, shape in shapes.items()}
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


class ReferenceBlock(nn.Module):
    """An independent, plain reading of what a block computes, in place of a decoder layer."""

    def __init__(self, model: Any, family: Family, kind: str, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        layer = type(model.get_submodule(family.layers)[0])(model.config, 0)
        self.norm = getattr(layer, family.mlp_norm)
        self.kind, self.family = kind, family
        self.act: Any = next(m for n, m in layer.named_modules() if n in ("activation_fn", "mlp.act_fn", "mlp.act"))
        if kind == "swiglu":
            self.layer = layer
            state = {**layer.state_dict(), **tensors}
            layer.load_state_dict(state)
        elif kind == "ffn":
            norm = {name.removeprefix("norm."): t for name, t in tensors.items() if name.startswith("norm.")}
            self.norm.load_state_dict(norm)
        self.tensors = tensors

    def forward(self, h: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        if self.kind == "linear_residual":
            return h + h @ self.tensors["proj.weight"].T
        x: torch.Tensor = self.norm(h)
        if self.kind == "swiglu":
            for name in self.family.mlp_modules:
                x = getattr(self.layer, name)(x)
            return h + x
        t = self.tensors
        x = self.act(nn.functional.linear(x, t["up_proj.weight"], t.get("up_proj.bias")))
        return h + nn.functional.linear(x, t["down_proj.weight"], t.get("down_proj.bias"))


@torch.no_grad()
def reference_logits(
    source: Path, ids: torch.Tensor, start: int, end: int, kind: str, tensors: dict[str, torch.Tensor], count: int = 1
) -> torch.Tensor:
    """Logits [batch, sequence, vocabulary] of the dense model with its window swapped in memory, without a cache."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    family = FAMILIES[model.config.model_type]
    layers = model.get_submodule(family.layers)
    put_in: list[nn.Module] = []
    if kind == "layer":
        for i in range(count):
            layer = type(layers[0])(model.config, start + i)
            prefix = f"{i}." if count > 1 else ""
            layer.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
            put_in.append(layer)
    elif kind == "linear_merged":
        layers[start - 1].load_state_dict(tensors, strict=False)
    elif kind != "none":
        put_in = [ReferenceBlock(model, family, kind, tensors)]
    parent, _, name = family.layers.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.ModuleList([*layers[:start], *put_in, *layers[end:]]))
    model.config.num_hidden_layers = LAYERS - (end - start) + len(put_in)
    model.config._attn_implementation = "eager"
    return model.eval()(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]
