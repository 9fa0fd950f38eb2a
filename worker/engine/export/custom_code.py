"""Checkpoints that ship their own modelling file: an attention-free block beside a neighbouring decoder layer.

The block gets no place in the layer list (see the shipped file for why). It hangs before the first layer behind the
window, or after the last layer where the window reaches to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from app.core.architectures import (
    Config,
    Family,
    Shapes,
    branch_scale,
    config_value,
    ffn_tensors,
    linear_tensors,
    mlp_half_tensors,
)
from worker.engine.export.insertion import Insertion, Window
from worker.engine.export.stock import check_tensors
from worker.engine.recipe import Kind

MODELLING_FILE = Path(__file__).with_name("modeling_streamline.py")
FORMAT_VERSION = 3  # 1 had `modules` behind one norm; 2 left the config's activation readable
# Without the modelling file a library would find its own architecture and leave the block out, without an error. With
# this in the place of the activation's name it stops, and says what to do.
ACTIVATION_GUARD = "known to this checkpoint's own code: load it with trust_remote_code=True"
# transformers renames GPT-NeoX' stored `embed_out` to its module `lm_head` for its own classes, not for custom code.
_HEAD_MODULE = "lm_head"
_SHAPES: Mapping[Kind, Callable[[Config], Shapes]] = {
    "ffn": ffn_tensors, "swiglu": mlp_half_tensors, "linear_residual": linear_tensors,
}  # fmt: skip


def custom_block(
    family: Family, config: Config, window: Window, kind: Kind, replacement: Mapping[str, torch.Tensor]
) -> Insertion:
    """Return the insertion of a `swiglu`, `ffn` or `linear_residual` block with the modelling file that runs it.

    Raises EngineError `bad_replacement` where the tensors are not those of the family's block.
    """
    check_tensors(replacement, _SHAPES[kind](config), f"{kind} block")
    at_end = window.end == window.layers
    position = window.start - 1 if at_end else window.start
    spec = {
        "format_version": FORMAT_VERSION,
        "block": kind,
        "layers": family.layers,
        "position": position,
        "side": "after" if at_end else "before",
        "activation_field": family.activation_field,
        "hidden_act": config_value(config, family.activation_field),
        **({} if kind == "linear_residual" else _of_mlp(family, config, kind, replacement)),
    }
    class_name = f"Streamline{family.architecture}"
    return Insertion(
        layers=0,
        tensors={f"{family.layers}.{position}.streamline_block.{name}": tensor for name, tensor in replacement.items()},
        config={
            "streamline": spec,
            family.activation_field: ACTIVATION_GUARD,
            "architectures": [class_name],
            "auto_map": {"AutoModelForCausalLM": f"{MODELLING_FILE.stem}.{class_name}"},
        },
        files={MODELLING_FILE.name: MODELLING_FILE.read_bytes()},
        renamed_head=_HEAD_MODULE if family.head != _HEAD_MODULE else None,
    )


def _of_mlp(family: Family, config: Config, kind: Kind, replacement: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    up = "up_proj" if kind == "ffn" else family.mlp_up
    return {
        "norm": family.mlp_norm,
        "steps": list(family.mlp_steps),
        "scale": branch_scale(config) if kind == "swiglu" else 1.0,
        "intermediate_size": int(replacement[f"{up}.weight"].shape[0]),
        "bias": f"{up}.bias" in replacement,
    }
