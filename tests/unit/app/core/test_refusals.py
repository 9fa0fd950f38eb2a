"""What cannot be cut safely is refused from the config alone, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.architectures import CannotBeCut, OwnModellingCode, UnsupportedFamily, refuse_uncuttable
from tests.unit.app.core.configs import LLAMA_2_7B

FAMILIES: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "t5", "is_encoder_decoder": True}, "encoder-decoder"),
    ({"model_type": "mamba"}, "recurrent state"),
    ({"model_type": "falcon_h1"}, "recurrent state"),
    ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, r"multimodal.*gemma3_text"),
    ({"model_type": "llama4", "text_config": {"model_type": "llama4_text"}}, r"multimodal.*llama4_text"),
]
MODELS: list[tuple[dict[str, Any], str]] = [
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised and packed.*gptq"),
    ({"quantization_config": {"quant_method": "mxfp4"}, "model_type": "gpt_oss"}, "quantised and packed.*mxfp4"),
    ({"num_kv_shared_layers": 10}, "num_kv_shared_layers"),
    ({"use_cla": True, "cla_share_factor": 2}, "use_cla"),
    ({"hidden_size_per_layer_input": 256}, "every layer"),
    ({"scale_attn_by_inverse_layer_idx": True, "model_type": "gpt2"}, "scale_attn_by_inverse_layer_idx"),
    ({"layer_types": ["full_attention", "linear_attention"] * 16}, "linear_attention"),
]


@pytest.mark.parametrize(("config", "reason"), FAMILIES, ids=lambda value: str(value)[:40])
def test_a_family_is_refused_with_its_reason_and_the_supported_ones(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedFamily, match=f"{reason}.*llama, mistral.*deepseek_v3"):
        refuse_uncuttable(config)


@pytest.mark.parametrize(("fields", "reason"), MODELS, ids=lambda value: str(value)[:40])
def test_a_model_of_a_supported_family_is_refused_with_its_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(CannotBeCut, match=reason):
        refuse_uncuttable(LLAMA_2_7B | fields)


def test_code_that_the_library_has_taken_over_is_no_code_of_its_own() -> None:
    config = LLAMA_2_7B | {"model_type": "deepseek_v3"}
    refuse_uncuttable(config | {"auto_map": {"AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM"}})
    for own in ("modeling.Own", "someone/repo--modeling.Own"):
        with pytest.raises(OwnModellingCode):
            refuse_uncuttable(config | {"auto_map": {"AutoModelForCausalLM": own}})


def test_an_ordinary_model_is_not_refused() -> None:
    refuse_uncuttable(LLAMA_2_7B)
    refuse_uncuttable(LLAMA_2_7B | {"layer_types": ["full_attention", "sliding_attention"] * 16})
