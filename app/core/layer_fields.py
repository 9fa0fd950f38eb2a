"""The fields of a config.json that list, count or number its decoder layers, and how each follows a cut.

One table, keyed by the field. A cut is described by the layers that are kept: for each layer of the result the number
of the dense model's layer whose settings it has (an inserted layer has those of the layer whose place it takes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from app.core.architectures import ArchitectureError, Config, layer_count

_NOT_OF_LAYERS = ("architectures", "_token_id", "_token_ids", "_tokens", "_keys")

Rule = Callable[[str, Any, Config, Sequence[int]], Mapping[str, Any]]
"""Field, its value, the dense config and the kept layers -> the fields that change."""


def kept_layers(start: int, end: int, layers: int, *, inserted: int) -> list[int]:
    """Return the kept layers where [start, end) of `layers` go and `inserted` ones take the first of their places."""
    return kept_beside(((start, end, inserted),), layers)


def kept_beside(windows: Iterable[tuple[int, int, int]], layers: int) -> list[int]:
    """Return the kept layers where several windows (start, end, inserted), which do not overlap, go at once."""
    gone = {layer for start, end, inserted in windows for layer in range(start + inserted, end)}
    return [layer for layer in range(layers) if layer not in gone]


def cut_layer_fields(config: Config, kept: Sequence[int]) -> dict[str, Any]:
    """Return the fields of `config` that change when only the layers `kept` are left, None for one that goes.

    The layer count is not among them.

    Raises:
        ArchitectureError: a list does not have one entry per layer, a pattern cannot be written for the result, or
            there is a list per layer that no rule is known for.
    """
    if unknown := _unknown_list(config):
        raise ArchitectureError(
            f"config.json: {unknown} has one entry per layer, and how it follows a cut is not known"
        )
    changed: dict[str, Any] = {}
    for name, rule in RULES.items():
        if config.get(name) is not None:
            changed |= rule(name, config[name], config, kept)
    return changed


def _unknown_list(config: Config) -> str | None:
    """Return a field that no rule is known for and that seems to say something of each layer."""
    for name, value in config.items():
        listed = isinstance(value, list) and len(value) == layer_count(config)
        if listed and name not in RULES and not name.endswith(_NOT_OF_LAYERS):
            return name
    return None


def _each(name: str, values: Any, config: Config, kept: Sequence[int]) -> Mapping[str, Any]:
    layers = layer_count(config)
    if not isinstance(values, list) or len(values) != layers:
        raise ArchitectureError(f"config.json: {name} must list one entry per layer ({layers})")
    return {name: [values[layer] for layer in kept]}


def _leading(name: str, value: Any, config: Config, kept: Sequence[int]) -> Mapping[str, Any]:
    if not isinstance(value, int) or value < 0:
        raise ArchitectureError(f"config.json: {name} is {value!r} but must be a number of layers")
    return {name: value if value > layer_count(config) else sum(layer < value for layer in kept)}


def _numbers(name: str, values: Any, _: Config, kept: Sequence[int]) -> Mapping[str, Any]:
    if not isinstance(values, list | tuple):
        raise ArchitectureError(f"config.json: {name} must be a list of layer numbers")
    return {name: [place for place, layer in enumerate(kept) if layer in values]}


def _period(name: str, period: Any, config: Config, kept: Sequence[int]) -> Mapping[str, Any]:
    """A period holds no more after a cut: it goes, and the list in `PERIODS` says for each layer what is so."""
    if period == 1 or list(kept) == list(range(layer_count(config))):
        return {}
    if config.get(PERIODS[name]) is not None:
        return {name: None}
    raise ArchitectureError(
        f"config.json: {name} is {period!r}, and a cut breaks that period; give {PERIODS[name]} as a list as well"
    )


def _sparse_step(name: str, step: Any, config: Config, kept: Sequence[int]) -> Mapping[str, Any]:
    """Qwen's mixtures: every `step`-th layer has experts but those in `mlp_only_layers`; a cut lists all dense ones."""
    dense = set(config.get("mlp_only_layers") or ())
    if isinstance(step, int) and step > 1:
        dense |= {layer for layer in range(layer_count(config)) if (layer + 1) % step}
    return {name: 1, **_numbers("mlp_only_layers", sorted(dense), config, kept)}


def _each_or_all(name: str, value: Any, config: Config, kept: Sequence[int]) -> Mapping[str, Any]:
    """MoE frequencies: one entry per layer, or a period, which must be 1."""
    if isinstance(value, list):
        return _each(name, value, config, kept)
    if value == 1:
        return {}
    raise ArchitectureError(f"config.json: {name} is {value!r}, and a cut breaks that period; only 1 can be cut")


def _none_left(name: str, _: Any, __: Config, ___: Sequence[int]) -> Mapping[str, Any]:
    return {name: 0}


PERIODS: Mapping[str, str] = {
    "sliding_window_pattern": "layer_types",
    "_sliding_window_pattern": "layer_types",
    "no_rope_layer_interval": "no_rope_layers",
    "interleave_moe_layer_step": "moe_layers",
}
"""Fields that say "every n-th layer", and the list that says the same layer by layer."""

RULES: Mapping[str, Rule] = {
    # One entry per layer.
    "layer_types": _each,
    "mlp_layer_types": _each,
    "no_rope_layers": _each,
    "moe_layer_freq": _each_or_all,
    # How many of the first layers.
    "first_k_dense_replace": _leading,
    "max_window_layers": _leading,
    # Numbers of layers. decoder_sparse_step comes behind mlp_only_layers and takes it up.
    "moe_layers": _numbers,
    "mlp_only_layers": _numbers,
    "decoder_sparse_step": _sparse_step,
    # Heads that predict further tokens: they are left out of the result.
    "num_nextn_predict_layers": _none_left,
    **dict.fromkeys(PERIODS, _period),
}
"""Each field, and the rule by which it follows a cut."""

UNIFORM = frozenset({
    "llama", "mistral", "mixtral", "gemma", "phi3", "opt", "gpt_neox", "gpt2", "falcon", "starcoder2", "olmo2",
    "granite", "cohere",
})  # fmt: skip
"""Model types whose layers are all alike unless config.json says otherwise: the library fills in no such field."""
