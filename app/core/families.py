"""What is told about a model family: the names of its modules and tensors, and where a config keeps its sizes.

`app.core.family_table` has one declarative entry per family: the linear and norm modules of one decoder layer, the
modules outside the layers, and the config's field names; `app.core.architectures` derives everything else from it.

Sizes are written as symbols and resolved against the config: ``hidden``, ``mlp``, ``query`` (heads x head size),
``key`` (key-value heads x head size), ``head``, ``vocab``, ``positions``, ``embedding`` (OPT-350m embeds into fewer
dimensions), ``fused`` (queries, keys and values in one).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Config = Mapping[str, Any]
"""A parsed config.json."""

Flag = bool | str
"""True, False, or the name of the config field that tells."""


@dataclass(frozen=True)
class Linear:
    """A linear map's weight [outputs, inputs] and bias [outputs], `name` relative to its parent.

    `transposed` is GPT-2's: it stores [inputs, outputs].
    """

    name: str
    inputs: str
    outputs: str
    bias: Flag = False
    transposed: bool = False


@dataclass(frozen=True)
class Norm:
    """A norm's weight [size] and, for a layer norm, bias [size]."""

    name: str
    size: str = "hidden"
    bias: bool = False
    affine: Flag = True


@dataclass(frozen=True)
class Table:
    """An embedding table [rows, width], or a norm per attention head; `present` tells whether there is one."""

    name: str
    rows: str
    width: str
    present: Flag = True


@dataclass(frozen=True)
class Stack:
    """The matrices of all experts in one tensor [count, rows, columns]."""

    name: str
    count: str
    rows: str
    columns: str


Module = Linear | Norm | Table | Stack


@dataclass(frozen=True)
class Family:
    """One model family: names are those of the checkpoint's tensors, module paths those of transformers.

    Names in `attention_output`, `mlp_norm`, `mlp_modules` and `mlp_down` are relative to a decoder layer;
    `layers`, `embedding`, `final_norm` and `head` are relative to the whole model. A family without `layer_modules` has
    no formula: its checkpoints' headers tell what there is, and its layers are taken whole.

    Attributes:
        mixture: whether its MLPs, in some layers or all, are mixtures of experts.
        mlp_norm: the norm in front of the MLP; OLMo 2 has none and this is the one behind.
        mlp_modules: what computes the MLP half, in order, without a norm in front.
        branch_scale_field: config field of the factor on what the MLP half adds to the residual stream.
        position_offset: rows of a learned position table beyond the positions.
        default_mlp_multiple: width of the MLP over the hidden size where the config leaves it out.
        by_config: changes the family where its configs differ in the names of modules.
    """

    model_type: str
    architecture: str = ""
    layers: str = "model.layers"
    embedding: str = "model.embed_tokens"
    final_norm: str = "model.norm"
    head: str = "lm_head"
    attention_output: str = ""
    mlp_norm: str = ""
    mlp_modules: tuple[str, ...] = ()
    mlp_up: str = ""
    mlp_down: str = ""
    layer_modules: tuple[Module, ...] = ()
    outer_modules: tuple[Module, ...] = ()
    gated_mlp: bool = True
    mixture: bool = False
    intermediate_field: str = "intermediate_size"
    activation_field: str = "hidden_act"
    branch_scale_field: str = ""
    position_offset: int = 0
    default_mlp_multiple: int = 0
    defaults: Mapping[str, Any] = field(default_factory=dict)
    by_config: Callable[[Family, Config], Family] | None = None

    @property
    def has_formula(self) -> bool:
        """Whether shapes and parameter counts follow from the config alone."""
        return bool(self.layer_modules)

    @property
    def mlp_steps(self) -> tuple[str, ...]:
        """The modules of the MLP half h + steps(h), in order."""
        return self.mlp_modules if self.mlp_norm in self.mlp_modules else (self.mlp_norm, *self.mlp_modules)
