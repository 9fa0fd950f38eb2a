"""What the service and the engine know about a model: shapes and parameter counts, from config.json alone.

Derived from the table in `app.core.families`; no weights and no torch are needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from app.core.families import Config, Family, Flag, Linear, Module, Norm, Stack, Table
from app.core.family_table import DISCOVERED, FAMILIES, SUPPORTED
from app.core.refusals import family_refusal, model_refusal

__all__ = [
    "BLOCK_KINDS", "FAMILIES", "FFN_WIDTH", "FITTED_KINDS", "SUPPORTED", "ArchitectureError", "BlockKind",
    "CannotBeCut", "Config", "Family", "NativeFormRefused", "NoFormula", "OutputFormat", "OwnModellingCode",
    "ReplacementRefused", "Shapes", "UnsupportedFamily", "block_parameters", "branch_scale", "config_value",
    "dense_parameters", "family_of", "ffn_tensors", "field_name", "fold_refusal", "hidden_size",
   "kind_refusal", "layer_count", "layer_parameters", "layer_tensors", "linear_tensors", "max_positions",
    "mlp_half_tensors", "native_refusal", "outer_tensors", "pre_norm", "refuse_uncuttable", "size_of",
    "tied_embeddings",
]  # fmt: skip

BlockKind = Literal["none", "ffn", "swiglu", "layer", "linear_merged", "linear_residual"]
OutputFormat = Literal["auto", "native"]
Shapes = dict[str, tuple[int, ...]]

BLOCK_KINDS: tuple[BlockKind, ...] = ("none", "ffn", "swiglu", "layer", "linear_merged", "linear_residual")
FITTED_KINDS: tuple[BlockKind, ...] = ("linear_merged", "linear_residual")
"""Kinds that are fitted in closed form while the data stream by: no training, nothing stored."""
FFN_WIDTH = 4
"""The `ffn` block is d -> 4d -> d (LLM-Streamline, arXiv 2403.19135, section 3.2)."""

# Older names of a field, which a config.json may have instead (GPT-2, Falcon).
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "n_embed"),
    "num_hidden_layers": ("n_layer",),
    "num_attention_heads": ("n_head",),
    "num_key_value_heads": ("num_kv_heads",),
    "max_position_embeddings": ("n_positions",),
}


class ArchitectureError(ValueError):
    """A config that cannot be worked with. `code` is stable, the message says what to do next."""

    code = "bad_config"


class UnsupportedFamily(ArchitectureError):  # noqa: N818 - reads as what happened
    """The config's model type is not in the table; where it is known why, the message says so."""

    code = "unsupported_family"

    def __init__(self, model_type: object, supported: tuple[str, ...], reason: str | None = None) -> None:
        super().__init__(
            f"model family {model_type!r} is not supported{f': {reason}' if reason else ''}; supported families: "
            f"{', '.join(supported)}. Choose a model whose config.json has one of these as model_type."
        )
        self.model_type = model_type
        self.supported = supported


class NoFormula(ArchitectureError):  # noqa: N818 - reads as what happened
    """The family's parameters do not follow from the config alone; the checkpoint's headers tell them."""

    code = "plan_needs_weights"

    def __init__(self, model_type: str) -> None:
        super().__init__(f"for model family {model_type!r} no formula is known; those with one: {', '.join(FAMILIES)}")


class NativeFormRefused(ArchitectureError):  # noqa: N818 - reads as what happened
    """The block cannot be written as a stock decoder layer of this family."""

    code = "native_form_refused"


class ReplacementRefused(ArchitectureError):  # noqa: N818 - reads as what happened
    """This kind of replacement, or this start of it, makes no sense in this family."""

    code = "replacement_refused"


class CannotBeCut(ArchitectureError):  # noqa: N818 - reads as what happened
    """A model of a supported family whose layers depend on each other, or whose weights cannot be worked with."""

    code = "unsupported_model"


class OwnModellingCode(ArchitectureError):  # noqa: N818 - reads as what happened
    """The model is computed by code that comes with it, which a cut of a stock architecture does not describe."""

    code = "unsupported_model"

    def __init__(self) -> None:
        super().__init__(
            "this model runs its own modelling code; compress the dense model, or one written in output.format native"
        )


def family_of(config: Config) -> Family:
    """Return the family of a config.

    Raises:
        UnsupportedFamily: the model type is not in the table; the message lists the supported ones.
    """
    model_type = config.get("model_type")
    if isinstance(model_type, str):
        family = FAMILIES.get(model_type) or DISCOVERED.get(model_type)
        if family is not None:
            return family.by_config(family, config) if family.by_config else family
    raise UnsupportedFamily(model_type, SUPPORTED, family_refusal(config))


def field_name(config: Config, name: str) -> str:
    """Return the name that this config has for a field: its own, or an older one (GPT-2's `n_layer`)."""
    return next((known for known in (name, *_ALIASES.get(name, ())) if config.get(known) is not None), name)


def config_value(config: Config, name: str) -> Any:
    """Return a config field, or transformers' default for the family where the config leaves it out."""
    value = config.get(field_name(config, name))
    return family_of(config).defaults.get(name) if value is None else value


def refuse_uncuttable(config: Config) -> None:
    """Refuse a model that cannot be cut safely, or that is computed by code that comes with it.

    Raises:
        OwnModellingCode: config.json has `streamline`, or an `auto_map` with a causal language model other than the
            library's own (DeepSeek-V3 and Phi-3 still name the code that the library took over).
        CannotBeCut: packed weights, shared keys and values and the like; see `app.core.refusals`.
    """
    family = family_of(config)  # a family that is not supported is the first thing to say
    if reason := model_refusal(config):
        raise CannotBeCut(reason)
    auto_map = config.get("auto_map")
    own = auto_map.get("AutoModelForCausalLM") if isinstance(auto_map, Mapping) else None
    if "streamline" in config or (own is not None and str(own).rpartition(".")[2] != family.architecture):
        raise OwnModellingCode


def _count(config: Config, name: str) -> int:
    value = config_value(config, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArchitectureError(f"config.json: {name} is {value!r} but must be a whole number of at least 1")
    return value


def layer_count(config: Config) -> int:
    """Return the number of decoder layers, L."""
    return _count(config, "num_hidden_layers")


def hidden_size(config: Config) -> int:
    """Return the width of the residual stream, d."""
    return _count(config, "hidden_size")


def max_positions(config: Config) -> int:
    """Return the longest sequence, in tokens, that the model has positions for."""
    return _count(config, "max_position_embeddings")


def tied_embeddings(config: Config) -> bool:
    """Tell whether the head shares the input embedding's tensor."""
    return bool(config_value(config, "tie_word_embeddings"))


def pre_norm(config: Config) -> bool:
    """Tell whether norms stand before attention and MLP; OPT-350m is the exception (post-norm)."""
    return bool(config.get("do_layer_norm_before", True))


_SIZES: Mapping[str, Callable[[Config], int]] = {
    "hidden": hidden_size,
    "mlp": lambda config: _mlp_width(config),  # noqa: PLW0108 - it is defined further down
    "head": lambda config: int(
        config_value(config, "head_dim") or hidden_size(config) // _count(config, "num_attention_heads")
    ),
    "query": lambda config: _count(config, "num_attention_heads") * size_of(config, "head"),
    "key": lambda config: int(
        config_value(config, "num_key_value_heads") or _count(config, "num_attention_heads")
    ) * size_of(config, "head"),
    "qkv": lambda config: 3 * hidden_size(config),
    "fused": lambda config: size_of(config, "query") + 2 * size_of(config, "key"),
    "one key": lambda config: hidden_size(config) + 2 * size_of(config, "head"),
    "two mlp": lambda config: 2 * _mlp_width(config),
    "experts": lambda config: _count(config, "num_local_experts"),
    "heads": lambda config: _count(config, "num_attention_heads"),
    "key heads": lambda config: size_of(config, "key") // size_of(config, "head"),
    "vocab": lambda config: _count(config, "vocab_size"),
    "embedding": lambda config: int(config.get("word_embed_proj_dim") or hidden_size(config)),
    "positions": lambda config: max_positions(config) + family_of(config).position_offset,
}  # fmt: skip


def _mlp_width(config: Config) -> int:
    family = family_of(config)
    if family.default_mlp_multiple and config_value(config, family.intermediate_field) is None:
        return family.default_mlp_multiple * hidden_size(config)
    return _count(config, family.intermediate_field)


def size_of(config: Config, symbol: str) -> int:
    """Resolve a size symbol of the table (``hidden``, ``mlp``, ``query``, ...) to a number."""
    return _SIZES[symbol](config)


def _shapes(config: Config, module: Module) -> Shapes:
    def on(flag: Flag) -> bool:
        return bool(config_value(config, flag)) if isinstance(flag, str) else flag

    match module:
        case Linear(name, inputs, outputs, bias, transposed):
            width = size_of(config, outputs)
            weight = (width, size_of(config, inputs))
            shapes: Shapes = {f"{name}.weight": weight[::-1] if transposed else weight}
            return shapes | ({f"{name}.bias": (width,)} if on(bias) else {})
        case Norm(name, size, bias, affine):
            length = size_of(config, size)
            names = ("weight", "bias") if bias else ("weight",)
            return {f"{name}.{part}": (length,) for part in names} if on(affine) else {}
        case Stack(name, count, rows, columns):
            return {name: tuple(size_of(config, symbol) for symbol in (count, rows, columns))}
        case Table(name, rows, columns, present):
            return {f"{name}.weight": (size_of(config, rows), size_of(config, columns))} if on(present) else {}


def layer_tensors(config: Config) -> Shapes:
    """Return name (relative to the layer) -> shape for every tensor of one decoder layer.

    Raises:
        NoFormula: they do not follow from the config.
    """
    family = family_of(config)
    if not family.has_formula:
        raise NoFormula(family.model_type)
    return {name: shape for module in family.layer_modules for name, shape in _shapes(config, module).items()}


def outer_tensors(config: Config) -> Shapes:
    """Return name -> shape for every stored tensor outside the decoder layers; a tied head is not stored twice."""
    family = family_of(config)
    modules: list[Module] = list(family.outer_modules)
    if size_of(config, "embedding") == hidden_size(config):
        modules = [module for module in modules if not module.name.endswith((".project_in", ".project_out"))]
    if config_value(config, "_remove_final_layer_norm") or not pre_norm(config):
        modules = [module for module in modules if module.name != family.final_norm]
    if not tied_embeddings(config):
        modules.append(Linear(family.head, "embedding", "vocab"))
    return {name: shape for module in modules for name, shape in _shapes(config, module).items()}


def mlp_half_tensors(config: Config) -> Shapes:
    """Return the tensors of a layer's MLP half and its norm: what a `swiglu` block is made of."""
    family = family_of(config)
    roots = tuple(f"{name}." for name in family.mlp_steps)
    return {name: shape for name, shape in layer_tensors(config).items() if name.startswith(roots)}


def ffn_tensors(config: Config) -> Shapes:
    """Return the tensors of an `ffn` block: norm, d -> 4d, 4d -> d; biases as in the family's own MLP."""
    d = hidden_size(config)
    own = mlp_half_tensors(config)
    family = family_of(config)
    shapes: Shapes = {f"norm.{part}": (d,) for part in ("weight", "bias") if f"{family.mlp_norm}.{part}" in own}
    shapes |= {"up_proj.weight": (FFN_WIDTH * d, d), "down_proj.weight": (d, FFN_WIDTH * d)}
    if f"{family.mlp_down}.bias" in own:
        shapes |= {"up_proj.bias": (FFN_WIDTH * d,), "down_proj.bias": (d,)}
    return shapes


def linear_tensors(config: Config) -> Shapes:
    """Return the tensors of a `linear_residual` block: one d x d map."""
    return {"proj.weight": (hidden_size(config), hidden_size(config))}


def fold_refusal(config: Config) -> str | None:
    """Say why a linear map behind a layer's MLP cannot be folded into its down projection, or None where it can.

    It can where the down projection's output is added to the residual stream as it is: sequential pre-norm layers, and
    parallel ones (GPT-NeoX), in which attention and MLP are added side by side.
    """
    family = family_of(config)
    if family.mixture:
        return f"the MLP of {family.model_type} has no single down projection (mixture of experts)"
    if not family.has_formula:
        return f"the MLP of {family.model_type} is not known"
    if not pre_norm(config):
        return "a norm follows the MLP (do_layer_norm_before is false)"
    if not f"{family.mlp_down}.".startswith(f"{family.mlp_modules[-1]}."):
        return f"a norm follows the MLP in {family.model_type}"
    return None


def branch_scale(config: Config) -> float:
    """Return the factor on what a layer's MLP half adds to the residual stream (Granite), 1 elsewhere."""
    field = family_of(config).branch_scale_field
    return float(config_value(config, field)) if field else 1.0


def kind_refusal(config: Config, kind: BlockKind) -> str | None:
    """Say why a kind of replacement makes no sense in this family, or None where it does."""
    family = family_of(config)
    if kind in ("none", "layer"):
        return None
    if kind == "linear_merged":
        if (reason := fold_refusal(config)) is None:
            return None
        others = "layer or none" if kind_refusal(config, "linear_residual") else "linear_residual, layer or none"
        return f"linear_merged cannot be folded in: {reason}; use {others}"
    if family.mixture and kind != "linear_residual":
        return (
            f"{kind} has no form in {family.model_type}, whose MLP is a mixture of experts and not one MLP; use "
            "replacement.kind layer or none"
        )
    if family.has_formula and not family.mixture:
        return None
    return f"{kind} has no known form in {family.model_type}; use replacement.kind layer or none"


def native_refusal(config: Config, kind: BlockKind) -> str | None:
    """Say why a block has no native form in this family, or None where it has one (method: section 5)."""
    family = family_of(config)
    if kind in ("none", "layer", "linear_merged"):
        return None
    if kind == "linear_residual":
        return kind_refusal(config, kind) or (
            "linear_residual has no native form: the norm in front of every stock MLP destroys the scale that a linear "
            "map of the residual stream needs; use output.format auto, or replacement.kind linear_merged"
        )
    if reason := kind_refusal(config, kind):
        return reason
    if not pre_norm(config):
        return (
            f"{kind} has no native form in a post-norm model (do_layer_norm_before is false): the norm after the sum "
            "destroys the block's output; use output.format auto, or replacement.kind layer"
        )
    if kind == "swiglu":
        return None
    if family.gated_mlp:
        return (
            f"ffn has no native form in {family.model_type}, whose MLP is gated; "
            "use swiglu, layer, or output.format auto"
        )
    if size_of(config, "mlp") != FFN_WIDTH * hidden_size(config):
        return (
            f"ffn has no native form here: the model's MLP is {size_of(config, 'mlp')} wide and not {FFN_WIDTH} x "
            f"{hidden_size(config)}; use swiglu, layer, or output.format auto"
        )
    return None


def _numbers(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def layer_parameters(config: Config) -> int:
    """Return the number of parameters of one decoder layer."""
    return _numbers(layer_tensors(config))


def dense_parameters(config: Config) -> int:
    """Return the number of parameters of the whole model; tied embeddings count once."""
    return _numbers(outer_tensors(config)) + layer_count(config) * layer_parameters(config)


def block_parameters(
    config: Config, kind: BlockKind, output_format: OutputFormat = "auto", layer: int | None = None
) -> int:
    """Return the number of parameters that one replacement block adds to the checkpoint.

    The native form of `swiglu` and `ffn` is a full decoder layer with attention switched off, and counts as one.
    `layer` is the number of parameters of one decoder layer as headers tell; the family's formula where None.

    Raises:
        ReplacementRefused: the kind makes no sense in this family.
        NativeFormRefused: the block has no native form in this family.
        NoFormula: `layer` is None and the family has no formula.
    """
    if reason := kind_refusal(config, kind):
        raise ReplacementRefused(reason)
    if kind in ("none", "linear_merged"):
        return 0
    if output_format == "native" and (reason := native_refusal(config, kind)):
        raise NativeFormRefused(reason)
    if kind == "layer" or output_format == "native":
        return layer_parameters(config) if layer is None else layer
    tensors = {"swiglu": mlp_half_tensors, "ffn": ffn_tensors, "linear_residual": linear_tensors}
    return _numbers(tensors[kind](config))
