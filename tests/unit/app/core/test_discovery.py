"""Where the layers lie is told by the tensors' names alone."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.discovery import discover, layer_list
from app.core.selection import ParameterCounts


def config(layers: int = 3, **fields: Any) -> dict[str, Any]:
    return {"model_type": "deepseek_v3", "num_hidden_layers": layers, **fields}


def tensors(prefix: str, layers: int) -> dict[str, tuple[int, ...]]:
    named: dict[str, tuple[int, ...]] = {
        f"{prefix}.{layer}.mlp.experts.{expert}.w1.weight": (4, 2) for layer in range(layers) for expert in (0, 1)
    }
    return named | {"model.embed_tokens.weight": (8, 2), "lm_head.weight": (8, 2)}


@pytest.mark.parametrize("prefix", ["model.layers", "layers", "transformer.h", "h", "gpt_neox.layers"])
def test_the_layer_list_is_found_under_any_name(prefix: str) -> None:
    assert layer_list(config(), tensors(prefix, 3)) == prefix


@pytest.mark.parametrize(("prefix", "found"), [("model.layers", 16), ("layers", 16), ("h", 0), ("decoder.layers", 0)])
def test_a_family_of_the_table_has_its_layers_in_one_place_with_or_without_the_base(prefix: str, found: int) -> None:
    layout = discover(config() | {"model_type": "llama"}, tensors(prefix, 3))
    assert layout.per_layer == (found,) * 3


def test_experts_and_shorter_lists_are_not_mistaken_for_the_layers() -> None:
    names = {f"vision.blocks.{block}.weight": (1,) for block in range(2)} | tensors("model.layers", 3)
    layout = discover(config(), names)
    assert layout.layers == "model.layers"
    assert layout.per_layer == (16, 16, 16)
    assert layout.layer_shapes[1] == {"mlp.experts.0.w1.weight": (4, 2), "mlp.experts.1.w1.weight": (4, 2)}
    assert layout.outside_parameters == 16 + 16 + 2


def test_a_tied_head_counts_once_and_buffers_not_at_all() -> None:
    names = tensors("model.layers", 3) | {"model.layers.0.self_attn.rotary_emb.inv_freq": (64,)}
    layout = discover(config(tie_word_embeddings=True), names)
    assert layout.outside == {"model.embed_tokens.weight": (8, 2)}
    assert layout.per_layer == (16, 16, 16)


def test_heads_for_further_tokens_are_nobodys_layers() -> None:
    names = tensors("model.layers", 4) | {"mtp.norm.weight": (5,)}
    assert discover(config(num_nextn_predict_layers=1), names).outside_parameters == 32
    assert discover(config(), names).outside_parameters == 32 + 16 + 5


def test_a_layer_without_tensors_counts_nothing() -> None:
    sizes = {"model.layers.0.weight": 3, "model.layers.2.weight": 4, "model.norm.weight": 2}
    assert ParameterCounts.from_tensors(config(), sizes) == ParameterCounts((3, 0, 4), 2)
