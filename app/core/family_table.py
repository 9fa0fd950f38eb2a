"""The table of supported model families: one declarative entry each, so that an ordinary new one needs no code.

A family with an entry can be planned from its config alone and takes every kind of replacement. The families in
`DISCOVERED` need no entry: where their layers lie and what they weigh is read from a checkpoint's headers
(`app.core.discovery`), and a layer of theirs is cut or replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.core.families import Config, Family, Flag, Linear, Module, Norm, Stack, Table

_GATED_DEFAULTS: Mapping[str, Any] = {
    "tie_word_embeddings": False, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
}  # fmt: skip


def _attention(qkv_bias: Flag, output_bias: Flag) -> tuple[Module, ...]:
    return (
        Linear("self_attn.q_proj", "hidden", "query", qkv_bias),
        Linear("self_attn.k_proj", "hidden", "key", qkv_bias),
        Linear("self_attn.v_proj", "hidden", "key", qkv_bias),
        Linear("self_attn.o_proj", "query", "hidden", output_bias),
    )


def _gated_mlp(bias: Flag = False) -> tuple[Module, ...]:
    return (
        Linear("mlp.gate_proj", "hidden", "mlp", bias),
        Linear("mlp.up_proj", "hidden", "mlp", bias),
        Linear("mlp.down_proj", "mlp", "hidden", bias),
    )


_PRE_NORMS = ("input_layernorm", "post_attention_layernorm")
_HEAD_NORMS = (Norm("self_attn.q_norm", "head"), Norm("self_attn.k_norm", "head"))


def _gated_family(
    model_type: str,
    architecture: str,
    *,
    qkv_bias: Flag = "attention_bias",
    output_bias: Flag = "attention_bias",
    mlp_bias: Flag = False,
    norms: tuple[str, ...] = _PRE_NORMS,
    further: tuple[Module, ...] = (),
    mlp_norm: str = "post_attention_layernorm",
    mlp_modules: tuple[str, ...] = ("mlp",),
    activation_field: str = "hidden_act",
    branch_scale_field: str = "",
    **defaults: Any,
) -> Family:
    """Llama and its descendants: RMS norms, rotary positions, grouped queries and a gated MLP."""
    return Family(
        model_type=model_type,
        architecture=architecture,
        attention_output="self_attn.o_proj",
        mlp_norm=mlp_norm,
        mlp_modules=mlp_modules,
        mlp_up="mlp.up_proj",
        mlp_down="mlp.down_proj",
        activation_field=activation_field,
        branch_scale_field=branch_scale_field,
        layer_modules=(*_attention(qkv_bias, output_bias), *further, *_gated_mlp(mlp_bias), *map(Norm, norms)),
        outer_modules=(Table("model.embed_tokens", "vocab", "hidden"), Norm("model.norm")),
        defaults={**_GATED_DEFAULTS, **defaults},
    )


_SANDWICH_NORMS = (*_PRE_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")


def _gemma(model_type: str, architecture: str, *, further: tuple[Module, ...] = (), **defaults: Any) -> Family:
    """Gemma 2 and 3: a norm before and one behind each half of a layer."""
    return _gated_family(
        model_type,
        architecture,
        norms=_SANDWICH_NORMS,
        further=further,
        mlp_norm="pre_feedforward_layernorm",
        mlp_modules=("mlp", "post_feedforward_layernorm"),
        activation_field="hidden_activation",
        tie_word_embeddings=True,
        hidden_activation="gelu_pytorch_tanh",
        head_dim=256,
        num_key_value_heads=4,
        **defaults,
    )


_WIDE_NORMS = (Norm("self_attn.q_norm", "query"), Norm("self_attn.k_norm", "key"))


def _norms_behind(
    model_type: str,
    architecture: str,
    further: tuple[Module, ...],
    *,
    attention: Flag = "attention_bias",
    **defaults: Any,
) -> Family:
    """OLMo 2 and its kin: no norm in front of attention and MLP, one behind each."""
    return _gated_family(
        model_type,
        architecture,
        qkv_bias=attention,
        output_bias=attention,
        norms=("post_attention_layernorm", "post_feedforward_layernorm"),
        further=further,
        mlp_norm="post_feedforward_layernorm",
        mlp_modules=("mlp", "post_feedforward_layernorm"),
        **defaults,
    )


def _cohere(model_type: str, architecture: str, *, further: tuple[Module, ...] = ()) -> Family:
    """Attention and MLP side by side behind one norm."""
    return _gated_family(
        model_type,
        architecture,
        norms=("input_layernorm",),
        further=further,
        mlp_norm="input_layernorm",
        tie_word_embeddings=True,
        max_position_embeddings=8192,
        use_qk_norm=False,
    )


_PHI3 = replace(
    _gated_family("phi3", "Phi3ForCausalLM", max_position_embeddings=4096),
    mlp_up="mlp.gate_up_proj",
    layer_modules=(
        Linear("self_attn.qkv_proj", "hidden", "fused"),
        Linear("self_attn.o_proj", "query", "hidden"),
        Linear("mlp.gate_up_proj", "hidden", "two mlp"),
        Linear("mlp.down_proj", "mlp", "hidden"),
        *map(Norm, _PRE_NORMS),
    ),
)

_STARCODER2 = replace(
    _gated_family("starcoder2", "Starcoder2ForCausalLM"),
    mlp_up="mlp.c_fc",
    mlp_down="mlp.c_proj",
    gated_mlp=False,
    layer_modules=(
        *_attention("use_bias", "use_bias"),
        Linear("mlp.c_fc", "hidden", "mlp", "use_bias"),
        Linear("mlp.c_proj", "mlp", "hidden", "use_bias"),
        *(Norm(name, bias=True) for name in _PRE_NORMS),
    ),
    outer_modules=(Table("model.embed_tokens", "vocab", "hidden"), Norm("model.norm", bias=True)),
    defaults={
        "tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh", "use_bias": True, "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
    },
)  # fmt: skip

_GPT2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    layers="transformer.h",
    embedding="transformer.wte",
    final_norm="transformer.ln_f",
    attention_output="attn.c_proj",
    mlp_norm="ln_2",
    mlp_modules=("mlp",),
    mlp_up="mlp.c_fc",
    mlp_down="mlp.c_proj",
    gated_mlp=False,
    intermediate_field="n_inner",
    default_mlp_multiple=4,
    activation_field="activation_function",
    layer_modules=(
        Linear("attn.c_attn", "hidden", "qkv", True, transposed=True),
        Linear("attn.c_proj", "hidden", "hidden", True, transposed=True),
        Linear("mlp.c_fc", "hidden", "mlp", True, transposed=True),
        Linear("mlp.c_proj", "mlp", "hidden", True, transposed=True),
        Norm("ln_1", bias=True),
        Norm("ln_2", bias=True),
    ),
    outer_modules=(
        Table("transformer.wte", "vocab", "hidden"),
        Table("transformer.wpe", "positions", "hidden"),
        Norm("transformer.ln_f", bias=True),
    ),
    defaults={"tie_word_embeddings": True, "activation_function": "gelu_new", "max_position_embeddings": 1024},
)


def _falcon_variant(family: Family, config: Config) -> Family:
    """Falcon's three kinds of layer: sequential with two norms, parallel with one, parallel with one each."""
    new = bool(config.get("new_decoder_architecture"))
    parallel = config.get("parallel_attn") is not False
    norms: tuple[str, ...] = ("input_layernorm",)
    if not parallel:
        norms = ("input_layernorm", "post_attention_layernorm")
    elif (config.get("num_ln_in_parallel_attn") or (2 if new else 1)) == 2:
        norms = ("ln_attn", "ln_mlp")
    qkv = "fused" if new else "qkv" if config.get("multi_query") is False else "one key"
    return replace(
        family,
        mlp_norm=norms[-1],
        layer_modules=(
            Linear("self_attention.query_key_value", "hidden", qkv, "bias"),
            Linear("self_attention.dense", "hidden", "hidden", "bias"),
            Linear("mlp.dense_h_to_4h", "hidden", "mlp", "bias"),
            Linear("mlp.dense_4h_to_h", "mlp", "hidden", "bias"),
            *(Norm(name, bias=True) for name in norms),
        ),
    )


_FALCON = _falcon_variant(
    Family(
        model_type="falcon",
        architecture="FalconForCausalLM",
        layers="transformer.h",
        embedding="transformer.word_embeddings",
        final_norm="transformer.ln_f",
        attention_output="self_attention.dense",
        mlp_modules=("mlp",),
        mlp_up="mlp.dense_h_to_4h",
        mlp_down="mlp.dense_4h_to_h",
        gated_mlp=False,
        intermediate_field="ffn_hidden_size",
        default_mlp_multiple=4,
        activation_field="activation",
        outer_modules=(
            Table("transformer.word_embeddings", "vocab", "hidden"),
            Norm("transformer.ln_f", bias=True),
        ),
        defaults={"tie_word_embeddings": True, "activation": "gelu", "max_position_embeddings": 2048, "bias": False},
        by_config=_falcon_variant,
    ),
    {},
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
    position_offset=2,  # its position table has two extra rows in front
    activation_field="activation_function",
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

_MIXTRAL = replace(
    _gated_family("mixtral", "MixtralForCausalLM", num_key_value_heads=8, max_position_embeddings=131072),
    mixture=True,
    mlp_up="mlp.experts",
    mlp_down="mlp.experts",
    layer_modules=(
        *_attention(False, False),
        Linear("mlp.gate", "hidden", "experts"),
        Stack("mlp.experts.gate_up_proj", "experts", "two mlp", "hidden"),
        Stack("mlp.experts.down_proj", "experts", "hidden", "mlp"),
        *map(Norm, _PRE_NORMS),
    ),
)

# Defaults are those of transformers' config classes, for fields that an older config.json leaves out.
FAMILIES: Mapping[str, Family] = {
    family.model_type: family
    for family in (
        _gated_family("llama", "LlamaForCausalLM", mlp_bias="mlp_bias", max_position_embeddings=2048),
        _gated_family(
            "mistral", "MistralForCausalLM", qkv_bias=False, output_bias=False,
            num_key_value_heads=8, max_position_embeddings=131072,
        ),
        _gated_family(
            "qwen2", "Qwen2ForCausalLM", qkv_bias=True, output_bias=False,
            num_key_value_heads=32, max_position_embeddings=32768,
        ),
        _gated_family(
            "qwen3", "Qwen3ForCausalLM", further=_HEAD_NORMS,
            num_key_value_heads=32, head_dim=128, max_position_embeddings=32768,
        ),
        _OPT,
        _GPT_NEOX,
        _gated_family(
            "gemma", "GemmaForCausalLM",
            tie_word_embeddings=True, hidden_act="gelu_pytorch_tanh", head_dim=256, num_key_value_heads=16,
            max_position_embeddings=8192,
        ),
        _gemma("gemma2", "Gemma2ForCausalLM", max_position_embeddings=8192),
        _gemma("gemma3_text", "Gemma3ForCausalLM", further=_HEAD_NORMS, max_position_embeddings=131072),
        _PHI3,
        _GPT2,
        _FALCON,
        _STARCODER2,
        _norms_behind("olmo2", "Olmo2ForCausalLM", _WIDE_NORMS, max_position_embeddings=2048),
        _norms_behind("olmo3", "Olmo3ForCausalLM", _WIDE_NORMS, max_position_embeddings=2048),
        _norms_behind("exaone4", "Exaone4ForCausalLM", _HEAD_NORMS, attention=False, max_position_embeddings=2048),
        _gated_family("smollm3", "SmolLM3ForCausalLM", mlp_bias="mlp_bias", num_key_value_heads=4,
                      tie_word_embeddings=True, max_position_embeddings=32768),
        _gated_family("ministral", "MinistralForCausalLM", qkv_bias=False, output_bias=False, num_key_value_heads=8,
                      max_position_embeddings=131072),
        _gated_family(
            "granite", "GraniteForCausalLM", mlp_bias="mlp_bias", branch_scale_field="residual_multiplier",
            max_position_embeddings=2048, residual_multiplier=1.0,
        ),
        _cohere(
            "cohere", "CohereForCausalLM",
            further=(
                Table("self_attn.q_norm", "heads", "head", "use_qk_norm"),
                Table("self_attn.k_norm", "key heads", "head", "use_qk_norm"),
            ),
        ),
        _cohere("cohere2", "Cohere2ForCausalLM"),
        _MIXTRAL,
    )
}  # fmt: skip

_MIXTURES = (
    "llama4_text", "qwen3_moe", "deepseek_v2", "deepseek_v3", "gpt_oss", "qwen2_moe", "olmoe", "flex_olmo", "dots1",
    "glm4_moe", "granitemoe", "phimoe",
)  # fmt: skip
_ORDINARY = (
    "olmo", "stablelm", "phi", "glm", "glm4", "seed_oss", "ernie4_5", "hunyuan_v1_dense", "arcee", "helium", "nemotron",
    "persimmon", "vaultgemma", "gptj", "gpt_bigcode",
)  # fmt: skip

# The library's class, where published checkpoints also name code of that name from the time before.
_ARCHITECTURES = {"deepseek_v2": "DeepseekV2ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM"}

DISCOVERED: Mapping[str, Family] = {
    name: Family(name, _ARCHITECTURES.get(name, ""), mixture=name in _MIXTURES) for name in (*_MIXTURES, *_ORDINARY)
}
"""Families without an entry; one that is an ordinary stack of decoder layers needs nothing but its name here."""

SUPPORTED: tuple[str, ...] = (*FAMILIES, *DISCOVERED)
