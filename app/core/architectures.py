"""What the service and the engine know about a model: shapes and parameter counts, from config.json alone.

Derived from the table in `app.core.families`; no weights and no torch are needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from app.core.families import FAMILIES, SUPPORTED, Config, Family, Flag, Linear, Module, Norm, Table

__all__ = [
    "BLOCK_KINDS", "FAMILIES", "FFN_WIDTH", "FITTED_KINDS", "SUPPORTED", "ArchitectureError", "BlockKind", "Config",
    "Family",
    "NativeFormRefused", "OutputFormat", "OwnModellingCode", "ReplacementRefused", "Shapes", "UnsupportedFamily",
    "block_parameters", "config_value", "dense_parameters", "family_of", "ffn_tensors", "fold_refusal", "hidden_size",
    "init_refusal", "kind_refusal", "layer_count", "layer_parameters", "layer_tensors", "linear_tensors",
    "max_positions", "mlp_half_tensors", "native_refusal", "outer_tensors", "pre_norm", "refuse_own_code", "size_of",
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

_OPT_POSITION_OFFSET = 2  # OPT's learned position table has two extra rows in front


class ArchitectureError(ValueError):
    """A config that cannot be worked with. `code` is stable, the message says what to do next."""

    code = "bad_config"


class UnsupportedFamily(ArchitectureError):  # noqa: N818 - reads as what happened
    """The config's model type is not in the table."""

    code = "unsupported_family"

    def __init__(self, model_type: object, supported: tuple[str, ...]) -> None:
        super().__init__(
            f"model family {model_type!r} is not supported; supported families: {', '.join(supported)}. "
            "Choose a model whose config.json has one of these as model_type."
        )
        self.model_type = model_type
        self.supported = supported


class NativeFormRefused(ArchitectureError):  # noqa: N818 - reads as what happened
    """The block cannot be written as a stock decoder layer of this family."""

    code = "native_form_refused"


class ReplacementRefused(ArchitectureError):  # noqa: N818 - reads as what happened
    """This kind of replacement, or this start of it, makes no sense in this family."""

    code = "replacement_refused"


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
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise UnsupportedFamily(model_type, SUPPORTED)
    return family


def config_value(config: Config, name: str) -> Any:
    """Return a config field, or transformers' default for the family where the config leaves it out."""
    value = config.get(name)
    return family_of(config).defaults.get(name) if value is None else value


def refuse_own_code(config: Config) -> None:
    """Refuse a model that brings its own modelling code: a checkpoint of ours with a custom block, or anyone's.

    Raises:
        OwnModellingCode: config.json has `streamline`, or an `auto_map` with a causal language model.
    """
    auto_map = config.get("auto_map")
    if "streamline" in config or (isinstance(auto_map, Mapping) and "AutoModelForCausalLM" in auto_map):
        raise OwnModellingCode


def _count(config: Config, name: str) -> int:
    value = config_value(config, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArchitectureError(f"config.json: {name} is {value!r} but must be a whole number of at least 1")
    return value


def layer_count(config: Config) -> int:
    """Return the number of decoder layers, L."""
    return _count(config, family_of(config).layer_count_field)


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
    "mlp": lambda config: _count(config, family_of(config).intermediate_field),
    "head": lambda config: int(
        config_value(config, "head_dim") or hidden_size(config) // _count(config, "num_attention_heads")
    ),
    "query": lambda config: _count(config, "num_attention_heads") * size_of(config, "head"),
    "key": lambda config: int(
        config_value(config, "num_key_value_heads") or _count(config, "num_attention_heads")
    ) * size_of(config, "head"),
    "qkv": lambda config: 3 * hidden_size(config),
    "vocab": lambda config: _count(config, "vocab_size"),
    "embedding": lambda config: int(config.get("word_embed_proj_dim") or hidden_size(config)),
    "positions": lambda config: max_positions(config) + _OPT_POSITION_OFFSET,
}  # fmt: skip


def size_of(config: Config, symbol: str) -> int:
    """Resolve a size symbol of the table (``hidden``, ``mlp``, ``query``, ...) to a number."""
    return _SIZES[symbol](config)


def _shapes(config: Config, module: Module) -> Shapes:
    def on(flag: Flag) -> bool:
        return bool(config_value(config, flag)) if isinstance(flag, str) else flag

    match module:
        case Linear(name, inputs, outputs, bias):
            width = size_of(config, outputs)
            shapes: Shapes = {f"{name}.weight": (width, size_of(config, inputs))}
            return shapes | ({f"{name}.bias": (width,)} if on(bias) else {})
        case Norm(name, size, bias, affine):
            length = size_of(config, size)
            names = ("weight", "bias") if bias else ("weight",)
            return {f"{name}.{part}": (length,) for part in names} if on(affine) else {}
        case Table(name, rows, columns):
            return {f"{name}.weight": (size_of(config, rows), size_of(config, columns))}


def layer_tensors(config: Config) -> Shapes:
    """Return name (relative to the layer) -> shape for every tensor of one decoder layer."""
    modules = family_of(config).layer_modules
    return {name: shape for module in modules for name, shape in _shapes(config, module).items()}


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
    roots = tuple(f"{name}." for name in (family.mlp_norm, *family.mlp_modules))
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
    if f"{family.mlp_down}.weight" not in layer_tensors(config):
        return f"the MLP of {family.model_type} has no single down projection (mixture of experts)"
    if not pre_norm(config):
        return "a norm follows the MLP (do_layer_norm_before is false)"
    if not f"{family.mlp_down}.".startswith(f"{family.mlp_modules[-1]}."):
        return f"a norm follows the MLP in {family.model_type}"
    return None


def kind_refusal(config: Config, kind: BlockKind) -> str | None:
    """Say why a kind of replacement makes no sense in this family, or None where it does."""
    if kind == "linear_merged" and (reason := fold_refusal(config)):
        return f"linear_merged cannot be folded in: {reason}; use linear_residual, layer or none"
    return None


def init_refusal(config: Config, kind: BlockKind, init: str) -> str | None:
    """Say why a kind of replacement cannot start from `init`, or None where it can."""
    if kind in FITTED_KINDS and init != "closed_form":
        return f"{kind} is fitted in closed form and starts from nothing else; leave init out or use closed_form"
    if kind == "none" and init == "closed_form":
        return "none puts nothing in that could be fitted; leave init out"
    if kind == "layer" and init == "closed_form" and (reason := fold_refusal(config)):
        return f"closed_form fits a layer's down projection, which is not possible here: {reason}; use best"
    return None


def native_refusal(config: Config, kind: BlockKind) -> str | None:
    """Say why a block has no native form in this family, or None where it has one (method: section 5)."""
    family = family_of(config)
    if kind in ("none", "layer", "linear_merged"):
        return None
    if kind == "linear_residual":
        return (
            "linear_residual has no native form: the norm in front of every stock MLP destroys the scale that a linear "
            "map of the residual stream needs; use output.format auto, or replacement.kind linear_merged"
        )
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


def block_parameters(config: Config, kind: BlockKind, output_format: OutputFormat = "auto") -> int:
    """Return the number of parameters that one replacement block adds to the checkpoint.

    The native form of `swiglu` and `ffn` is a full decoder layer with attention switched off, and counts as one.

    Raises:
        ReplacementRefused: the kind makes no sense in this family.
        NativeFormRefused: the block has no native form in this family.
    """
    if reason := kind_refusal(config, kind):
        raise ReplacementRefused(reason)
    if kind in ("none", "linear_merged"):
        return 0
    if kind == "layer":
        return layer_parameters(config)
    if output_format == "native":
        if reason := native_refusal(config, kind):
            raise NativeFormRefused(reason)
        return layer_parameters(config)
    tensors = {"swiglu": mlp_half_tensors, "ffn": ffn_tensors, "linear_residual": linear_tensors}
    return _numbers(tensors[kind](config))
