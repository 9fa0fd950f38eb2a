"""What the family table promises: its counts are those of the real models."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.architectures import (
    FAMILIES,
    ArchitectureError,
    BlockKind,
    NativeFormRefused,
    UnsupportedFamily,
    block_parameters,
    dense_parameters,
    family_of,
    ffn_tensors,
    fold_refusal,
    kind_refusal,
    layer_count,
    layer_parameters,
    layer_tensors,
    native_refusal,
    outer_tensors,
)
from app.core.starts import init_refusal
from tests.unit.app.core.configs import LLAMA_2_7B, OPT_125M, OPT_350M, OTHERS, PYTHIA_160M, QWEN2_0_5B
from tests.unit.worker.engine.tiny_models import make_config

PUBLISHED = [
    (LLAMA_2_7B, 6_738_415_616),
    (QWEN2_0_5B, 494_032_768),
    (OPT_125M, 125_239_296),
    (OPT_350M, 331_196_416),
    (PYTHIA_160M, 162_322_944),
    *OTHERS.values(),
]


@pytest.mark.parametrize(("config", "parameters"), PUBLISHED, ids=lambda value: str(value)[:40])
def test_published_models_count_as_published(config: dict[str, Any], parameters: int) -> None:
    assert dense_parameters(config) == parameters


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((family, {"tie_word_embeddings": tied}) for family in FAMILIES for tied in (False, True)),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    ("falcon", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1, "ffn_hidden_size": 40}),
    ("falcon", {"parallel_attn": False, "multi_query": False}),
    ("cohere", {"use_qk_norm": False, "attention_bias": True}),
    ("gpt2", {"n_inner": 40}),
    ("starcoder2", {"use_bias": False}),
    ("granite", {"mlp_bias": True, "attention_bias": True}),
]


@pytest.mark.parametrize(("model_type", "changes"), VARIANTS, ids=str)
def test_names_and_shapes_are_those_that_transformers_builds(model_type: str, changes: dict[str, Any]) -> None:
    from transformers import AutoModelForCausalLM

    config = make_config(model_type, **changes)
    model = AutoModelForCausalLM.from_config(config)
    plain = config.to_dict()
    family = family_of(plain)
    layer = {name: tuple(p.shape) for name, p in model.get_submodule(family.layers)[0].named_parameters()}
    outside = {name: tuple(p.shape) for name, p in model.named_parameters() if not name.startswith(family.layers)}
    assert layer_tensors(plain) == layer
    # The checkpoint's name of GPT-NeoX' head is not the module's.
    stored = {name.replace("lm_head.", f"{family.head}."): shape for name, shape in outside.items()}
    assert outer_tensors(plain) == stored
    assert dense_parameters(plain) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("model_type", "changes"), VARIANTS, ids=str)
def test_named_modules_exist_in_the_model(model_type: str, changes: dict[str, Any]) -> None:
    from transformers import AutoModelForCausalLM

    config = make_config(model_type, **changes)
    family = family_of(config.to_dict())
    model = AutoModelForCausalLM.from_config(config)
    assert type(model).__name__ == family.architecture
    for path in (family.embedding, family.final_norm):
        model.get_submodule(path)
    layer = model.get_submodule(family.layers)[0]
    for path in (family.attention_output, *family.mlp_steps, family.mlp_norm, family.mlp_up, family.mlp_down):
        layer.get_submodule(path)


def test_an_unknown_family_is_refused_with_the_supported_ones() -> None:
    with pytest.raises(UnsupportedFamily, match="llama, mistral, qwen2, qwen3, opt, gpt_neox"):
        family_of({"model_type": "rwkv"})


@pytest.mark.parametrize("model_type", [None, 3, ["llama"], {}])
def test_a_model_type_of_any_kind_is_refused_and_never_crashes(model_type: object) -> None:
    with pytest.raises(UnsupportedFamily):
        family_of({"model_type": model_type})


@pytest.mark.parametrize("value", [0, -1, "12", 2.5, True])
def test_a_count_that_is_no_count_is_refused_by_name(value: object) -> None:
    with pytest.raises(ArchitectureError, match="num_hidden_layers"):
        layer_count(LLAMA_2_7B | {"num_hidden_layers": value})


def test_a_native_swiglu_counts_as_the_full_layer_that_it_is_written_as() -> None:
    assert block_parameters(LLAMA_2_7B, "swiglu") == 135_270_400
    assert block_parameters(LLAMA_2_7B, "swiglu", "native") == layer_parameters(LLAMA_2_7B)


def test_ffn_is_native_only_where_the_family_has_such_an_mlp() -> None:
    assert native_refusal(OPT_125M, "ffn") is None
    assert native_refusal(PYTHIA_160M, "ffn") is None
    assert "gated" in str(native_refusal(LLAMA_2_7B, "ffn"))
    assert "4 x 768" in str(native_refusal(OPT_125M | {"ffn_dim": 1000}, "ffn"))
    with pytest.raises(NativeFormRefused):
        block_parameters(LLAMA_2_7B, "ffn", "native")


def test_post_norm_has_no_native_blocks() -> None:
    assert "post-norm" in str(native_refusal(OPT_350M, "swiglu"))
    assert native_refusal(OPT_350M, "layer") is None


def test_a_linear_map_has_no_native_form_and_a_merged_one_no_parameters() -> None:
    assert block_parameters(LLAMA_2_7B, "linear_residual") == 4096 * 4096
    assert block_parameters(LLAMA_2_7B, "linear_merged") == block_parameters(LLAMA_2_7B, "linear_merged", "native") == 0
    with pytest.raises(NativeFormRefused, match="norm in front"):
        block_parameters(LLAMA_2_7B, "linear_residual", "native")


@pytest.mark.parametrize("config", [LLAMA_2_7B, QWEN2_0_5B, OPT_125M, PYTHIA_160M, OPT_350M])
def test_a_map_folds_into_every_mlp_that_no_norm_follows(config: dict[str, Any]) -> None:
    follows = config.get("do_layer_norm_before") is False
    assert ("a norm follows" in str(fold_refusal(config))) == follows
    assert (kind_refusal(config, "linear_merged") is None) != follows
    assert kind_refusal(config, "linear_residual") is None


@pytest.mark.parametrize(
    ("kind", "init", "reason"),
    [
        ("linear_merged", "first", "starts from nothing else"),
        ("linear_residual", "random", "starts from nothing else"),
        ("none", "closed_form", "nothing in that could be fitted"),
        ("linear_residual", "closed_form", None),
        ("none", "best", None),
        ("ffn", "closed_form", None),
        ("swiglu", "closed_form", None),
        ("layer", "closed_form", None),
    ],
)
def test_starts_that_mean_nothing_are_refused(kind: BlockKind, init: str, reason: str | None) -> None:
    found = init_refusal(LLAMA_2_7B, kind, init)
    assert found is None if reason is None else reason in str(found)


def test_a_layer_that_ends_in_a_norm_has_no_projection_to_fit() -> None:
    assert "a norm follows" in str(init_refusal(OPT_350M, "layer", "closed_form"))
    assert init_refusal(OPT_350M, "swiglu", "closed_form") is None


def test_ffn_has_biases_where_the_family_has_them() -> None:
    assert "up_proj.bias" not in ffn_tensors(LLAMA_2_7B)
    assert ffn_tensors(OPT_125M)["down_proj.bias"] == (768,)
