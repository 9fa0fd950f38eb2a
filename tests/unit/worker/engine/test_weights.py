"""Reading tensors by name gives what the library's own loading gives, however a family's files name and pack them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from app.core.safetensors_file import read_checkpoint
from worker.engine.weights import Weights, parameters_on_meta, stored_parameters

_COMMON = {"vocab_size": 64, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3,
           "max_position_embeddings": 64, "intermediate_size": 24, "num_key_value_heads": 1, "head_dim": 8}  # fmt: skip
_EXPERTS = {**_COMMON, "moe_intermediate_size": 12, "num_experts": 4, "num_experts_per_tok": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "mixtral": {**_COMMON, "num_local_experts": 4},
    "qwen3_moe": _EXPERTS,
    "deepseek_v3": {**_EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "q_lora_rank": 8,
                    "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
                    "first_k_dense_replace": 1},
    "gpt_oss": {**_COMMON, "num_local_experts": 4, "num_experts_per_tok": 2},
    "phi3": {**_COMMON, "pad_token_id": 0},
    "gemma3_text": _COMMON,
    "gpt2": {"vocab_size": 64, "n_embd": 16, "n_head": 2, "n_layer": 3, "n_positions": 64},
    "falcon": {"vocab_size": 64, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3},
    "cohere": _COMMON,
    "starcoder2": _COMMON,
}  # fmt: skip


@pytest.mark.parametrize(
    ("model_type", "dtype"), [*((name, torch.bfloat16) for name in CONFIGS), ("gpt_oss", torch.float16)]
)
def test_every_tensor_is_what_the_library_loads(tmp_path: Path, model_type: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **CONFIGS[model_type])
    shard_bytes = "1GB" if dtype == torch.float16 else 8_000
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path, max_shard_size=shard_bytes)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    with parameters_on_meta():
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path), dtype=dtype)
    assert all(parameter.is_meta for parameter in empty.parameters())
    weights = Weights(tmp_path, empty, torch.device("cpu"))
    state = whole.state_dict()
    assert state.keys() == empty.state_dict().keys()
    for name, tensor in state.items():
        read = weights.read(name)
        assert read.dtype == tensor.dtype, name
        assert torch.equal(read, tensor), name


def test_rows_are_those_of_the_whole_table_and_rounding_comes_first(tmp_path: Path) -> None:
    config = AutoConfig.for_model("llama", **_COMMON)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    weights = Weights(tmp_path, model, torch.device("cpu"))
    name = "model.embed_tokens.weight"
    assert torch.equal(weights.read(name, rows=[3, 0, 63]), model.get_parameter(name)[[3, 0, 63]])
    weights.rounded = torch.float16
    assert torch.equal(weights.read(name, rows=[5]), model.get_parameter(name)[[5]].half().float())
    assert stored_parameters(read_checkpoint(tmp_path)) == sum(tensor.numel() for tensor in model.parameters())


def test_the_memory_of_a_tensor_that_has_gone_is_used_again(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **_COMMON))
    model.save_pretrained(tmp_path)
    weights = Weights(tmp_path, model, torch.device("cpu"))
    names = ["mlp.up_proj.weight", "input_layernorm.weight"]
    first = weights.under("model.layers.0", names)
    second = weights.under("model.layers.1", names, first)
    for name in names:
        assert second[name].data_ptr() == first[name].data_ptr()
        assert torch.equal(second[name], model.get_parameter(f"model.layers.1.{name}"))
