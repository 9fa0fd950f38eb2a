"""The table of supported model families: the names of their modules and tensors, and where a config keeps its sizes.

One declarative entry per family: the linear and norm modules of one decoder layer, the modules outside the layers, and
the config's field names. `app.core.architectures` derives everything else from it, so an ordinary new family is one new
entry and no new code.

Sizes are written as symbols and resolved against the config: ``hidden``, ``mlp``, ``query`` (heads x head size),
``key`` (key-value heads x head size), ``head``, ``vocab``, ``positions``, ``embedding`` (OPT-350m embeds into fewer
dimensions).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Config = Mapping[str, Any]
"""A parsed config.json."""

Flag = bool | str
"""True, False, or the name of the config field that tells."""


@dataclass(frozen=True)
class Linear:
    """A linear map's weight [outputs, inputs] and bias [outputs], `name` relative to its parent."""

    name: str
    inputs: str
    outputs: str
    bias: Flag = False


@dataclass(frozen=True)
class Norm:
    """A norm's weight [size] and, for a layer norm, bias [size]."""

    name: str
    size: str = "hidden"
    bias: bool = False
    affine: Flag = True


@dataclass(frozen=True)
class Table:
    """An embedding table [rows, width]."""

    name: str
    rows: str
    width: str


Module = Linear | Norm | Table


@dataclass(frozen=True)
class Family:
    """One model family: names are those of the checkpoint's tensors, module paths those of transformers.

    Names in `attention_output`, `mlp_norm`, `mlp_modules` and `mlp_down` are relative to a decoder layer;
    `layers`, `embedding`, `final_norm` and `head` are relative to the whole model.
    """

    model_type: str
    architecture: str
    layers: str
    embedding: str
    final_norm: str
    head: str
    attention_output: str
    mlp_norm: str
    mlp_modules: tuple[str, ...]
    mlp_up: str
    mlp_down: str
    layer_modules: tuple[Module, ...]
    outer_modules: tuple[Module, ...]
    gated_mlp: bool
    layer_count_field: str = "num_hidden_layers"
    intermediate_field: str = "intermediate_size"
    activation_field: str = "hidden_act"
    per_layer_fields: tuple[str, ...] = ("layer_types",)
    defaults: Mapping[str, Any] = field(default_factory=dict)


def _gated_family(
    model_type: str,
    architecture: str,
    *,
    qkv_bias: Flag,
    output_bias: Flag,
    mlp_bias: Flag,
    defaults: Config,
    head_norms: bool = False,
) -> Family:
    """Llama and its descendants: RMS norms, rotary positions, grouped queries and a gated MLP."""
    return Family(
        model_type=model_type,
        architecture=architecture,
        layers="model.layers",
        embedding="model.embed_tokens",
        final_norm="model.norm",
        head="lm_head",
        attention_output="self_attn.o_proj",
        mlp_norm="post_attention_layernorm",
        mlp_modules=("mlp",),
        mlp_up="mlp.up_proj",
        mlp_down="mlp.down_proj",
        gated_mlp=True,
        layer_modules=(
            Linear("self_attn.q_proj", "hidden", "query", qkv_bias),
            Linear("self_attn.k_proj", "hidden", "key", qkv_bias),
            Linear("self_attn.v_proj", "hidden", "key", qkv_bias),
            Linear("self_attn.o_proj", "query", "hidden", output_bias),
            *((Norm("self_attn.q_norm", "head"), Norm("self_attn.k_norm", "head")) if head_norms else ()),
            Linear("mlp.gate_proj", "hidden", "mlp", mlp_bias),
            Linear("mlp.up_proj", "hidden", "mlp", mlp_bias),
            Linear("mlp.down_proj", "mlp", "hidden", mlp_bias),
            Norm("input_layernorm"),
            Norm("post_attention_layernorm"),
        ),
        outer_modules=(Table("model.embed_tokens", "vocab", "hidden"), Norm("model.norm")),
        defaults={"tie_word_embeddings": False, "hidden_act": "silu", "attention_bias": False, **defaults},
    )


_OPT = Family(
    model_type="opt",
    architecture="OPTForCausalLM",
    layers="model.decoder.layers",
    embedding="model.decoder.embed_tokens",
    final_norm="model.decoder.final_layer_norm",
    head="lm_head",
    attention_output="self_attn.out_proj",
    mlp_norm="final_layer_norm",
    mlp_modules=("fc1", "activation_fn", "fc2"),
    mlp_up="fc1",
    mlp_down="fc2",
    gated_mlp=False,
    intermediate_field="ffn_dim",
    activation_field="activation_function",
    per_layer_fields=(),
    layer_modules=(
        *(Linear(f"self_attn.{name}_proj", "hidden", "hidden", "enable_bias") for name in ("q", "k", "v", "out")),
        Linear("fc1", "hidden", "mlp", "enable_bias"),
        Linear("fc2", "mlp", "hidden", "enable_bias"),
        Norm("self_attn_layer_norm", bias=True, affine="layer_norm_elementwise_affine"),
        Norm("final_layer_norm", bias=True, affine="layer_norm_elementwise_affine"),
    ),
    outer_modules=(
        Table("model.decoder.embed_tokens", "vocab", "embedding"),
        Table("model.decoder.embed_positions", "positions", "hidden"),
        Linear("model.decoder.project_in", "embedding", "hidden"),
        Linear("model.decoder.project_out", "hidden", "embedding"),
        Norm("model.decoder.final_layer_norm", bias=True, affine="layer_norm_elementwise_affine"),
    ),
    defaults={
        "tie_word_embeddings": True, "activation_function": "relu", "enable_bias": True, "do_layer_norm_before": True,
        "_remove_final_layer_norm": False, "layer_norm_elementwise_affine": True, "max_position_embeddings": 2048,
    },
)  # fmt: skip

_GPT_NEOX = Family(
    model_type="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    layers="gpt_neox.layers",
    embedding="gpt_neox.embed_in",
    final_norm="gpt_neox.final_layer_norm",
    head="embed_out",
    attention_output="attention.dense",
    mlp_norm="post_attention_layernorm",
    mlp_modules=("mlp",),
    mlp_up="mlp.dense_h_to_4h",
    mlp_down="mlp.dense_4h_to_h",
    gated_mlp=False,
    per_layer_fields=(),
    layer_modules=(
        Linear("attention.query_key_value", "hidden", "qkv", "attention_bias"),
        Linear("attention.dense", "hidden", "hidden", "attention_bias"),
        Linear("mlp.dense_h_to_4h", "hidden", "mlp", True),
        Linear("mlp.dense_4h_to_h", "mlp", "hidden", True),
        Norm("input_layernorm", bias=True),
        Norm("post_attention_layernorm", bias=True),
    ),
    outer_modules=(Table("gpt_neox.embed_in", "vocab", "hidden"), Norm("gpt_neox.final_layer_norm", bias=True)),
    defaults={
        "tie_word_embeddings": False,
        "hidden_act": "gelu",
        "attention_bias": True,
        "max_position_embeddings": 2048,
    },
)

# Defaults are those of transformers' config classes, for fields that an older config.json leaves out.
FAMILIES: Mapping[str, Family] = {
    family.model_type: family
    for family in (
        _gated_family(
            "llama", "LlamaForCausalLM", qkv_bias="attention_bias", output_bias="attention_bias", mlp_bias="mlp_bias",
            defaults={"mlp_bias": False, "max_position_embeddings": 2048},
        ),
        _gated_family(
            "mistral", "MistralForCausalLM", qkv_bias=False, output_bias=False, mlp_bias=False,
            defaults={"num_key_value_heads": 8, "max_position_embeddings": 131072},
        ),
        _gated_family(
            "qwen2", "Qwen2ForCausalLM", qkv_bias=True, output_bias=False, mlp_bias=False,
            defaults={"num_key_value_heads": 32, "max_position_embeddings": 32768},
        ),
        _gated_family(
            "qwen3", "Qwen3ForCausalLM", qkv_bias="attention_bias", output_bias="attention_bias", mlp_bias=False,
            head_norms=True,
            defaults={"num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 32768},
        ),
        _OPT,
        _GPT_NEOX,
    )
}  # fmt: skip

SUPPORTED = tuple(FAMILIES)
