"""From a target to a window: how many layers go, what the result weighs, and which window it is once scores are known.

The target is net of the replacement: (removed - added) parameters over all parameters of the dense model, and the
window size is the one whose net ratio is closest to the target (LLM-Streamline, arXiv 2403.19135: Llama-2-7B at 25 %
gives 8 layers for `none`, 9 for `ffn`, 9 removed and 1 added for `layer`). Works from parameter counts alone: the
config's formula, or the sizes that the safetensors headers tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from app.core import architectures
from app.core.architectures import BlockKind, Config, OutputFormat
from app.core.discovery import discover

MINIMUM_RESULT_LAYERS = 2
"""Decoder blocks, replacement included, that a result must keep."""

Better = Literal["higher", "lower"]
"""Which scores of a metric mean a window that is worth less."""

_PROCESS_BYTES = 500_000_000  # interpreter, torch and the allocator's slack, as measured on a small model
_TRAINING_BYTES_PER_PARAMETER = 20  # float32: weight, gradient, two AdamW moments, the best state's copy
_FIT_BYTES_PER_NUMBER = 64  # float64: two d x d sums of the fitted and of the held-out data, and four to solve with


class SelectionError(ValueError):
    """A target that cannot be met: `pointer` is the JSON pointer of the field, the message names the allowed range."""

    code = "bad_target"

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer


@dataclass(frozen=True)
class Target:
    """Exactly one of: net sparsity in (0, 1); layers fewer in the result; an explicit window [start, end)."""

    sparsity: float | None = None
    layers: int | None = None
    window: tuple[int, int] | None = None


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of the dense model: per decoder layer and outside of them, tied embeddings once."""

    per_layer: tuple[int, ...]
    outside: int

    @property
    def dense(self) -> int:
        """All parameters of the dense model."""
        return sum(self.per_layer) + self.outside

    @classmethod
    def from_config(cls, config: Config) -> ParameterCounts:
        """Count by the family's formula.

        Raises:
            NoFormula: the config's family has none.
        """
        layers = architectures.layer_count(config)
        per_layer = architectures.layer_parameters(config)
        return cls((per_layer,) * layers, architectures.dense_parameters(config) - layers * per_layer)

    @classmethod
    def from_tensors(cls, config: Config, sizes: Mapping[str, int]) -> ParameterCounts:
        """Count from tensor name -> number of elements, as the safetensors headers tell.

        A head that is stored although the config ties it counts once; rotary and mask buffers of old checkpoints and
        heads that predict further tokens do not count.
        """
        layout = discover(config, {name: (size,) for name, size in sizes.items()})
        return cls(layout.per_layer, layout.outside_parameters)


@dataclass(frozen=True)
class WindowSize:
    """How many layers go and what comes in, before it is known which ones."""

    removed_count: int
    blocks_added: int
    added_parameters: int
    removed_parameters: int
    dense_parameters: int

    @property
    def pruned_parameters(self) -> int:
        """Parameters of the result."""
        return self.dense_parameters - self.removed_parameters + self.added_parameters

    @property
    def sparsity(self) -> float:
        """Net share of the dense model's parameters that is gone."""
        return (self.removed_parameters - self.added_parameters) / self.dense_parameters


@dataclass(frozen=True)
class Plan:
    """What a dry run answers; `removed_layers` is None when only scoring can tell."""

    removed_layers: tuple[int, ...] | None
    removed_count: int
    added_parameters: int
    dense_parameters: int
    pruned_parameters: int
    sparsity: float
    disk_bytes: int
    memory_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields under the names of the contract."""
        return {
            "removed_layers": None if self.removed_layers is None else list(self.removed_layers),
            "removed_count": self.removed_count,
            "added_parameters": self.added_parameters,
            "parameters": {"dense": self.dense_parameters, "pruned": self.pruned_parameters},
            "sparsity": self.sparsity,
            "estimated": {"disk_bytes": self.disk_bytes, "memory_bytes": self.memory_bytes},
        }


def blocks_added(kind: BlockKind, layers: int = 1) -> int:
    """Return how many decoder blocks a replacement puts in; `layers` is the number of new layers of kind `layer`.

    Raises:
        SelectionError: another kind puts one block in at most.
    """
    if kind != "layer" and layers != 1:
        raise SelectionError(
            "/replacement/layers",
            f"layers is {layers}, but {kind} is one block at most; leave it out, or use kind layer",
        )
    return 0 if kind in ("none", "linear_merged") else layers


def first_start(kind: BlockKind) -> int:
    """Return the lowest layer that a window may start at: `linear_merged` folds into the layer in front of it."""
    return 1 if kind == "linear_merged" else 0


def window_size(
    config: Config,
    target: Target,
    kind: BlockKind,
    output_format: OutputFormat = "auto",
    counts: ParameterCounts | None = None,
    layers: int = 1,
) -> WindowSize:
    """Return how many layers a target removes; `layers` is the number of new layers of kind `layer`.

    For a sparsity target the size is the one whose net ratio is closest, the smaller one on a tie, and at least the
    smallest that makes the model smaller at all.

    Raises:
        SelectionError: the target is malformed, outside the model, or leaves fewer than two decoder blocks or no
            original one; or the replacement is larger than the window or does not fit its place.
        ReplacementRefused, NativeFormRefused: the block, or its native form, makes no sense in this family.
        NoFormula: `counts` is None and the config's family has no formula.
    """
    given = [name for name in ("sparsity", "layers", "window") if getattr(target, name) is not None]
    if len(given) != 1:
        raise SelectionError(
            "/target", f"name exactly one of sparsity, layers and window; {len(given)} were given"
        )  # fmt: skip
    counts = counts or ParameterCounts.from_config(config)
    blocks = blocks_added(kind, layers)
    # A layer that is put in is as large as the window's first; before scoring only the layers' mean is known.
    mean = round(sum(counts.per_layer) / len(counts.per_layer))
    layer = counts.per_layer[target.window[0]] if _inside(target.window, len(counts.per_layer)) else mean
    per_block = architectures.block_parameters(config, kind, output_format, layer)
    sizes = _Sizes(counts, blocks, max(blocks, 1) * per_block, first_start(kind))
    if target.sparsity is not None:
        return sizes.at(sizes.closest(target.sparsity))
    if target.layers is not None:
        return sizes.at(sizes.fewer(target.layers))
    assert target.window is not None
    return sizes.at_window(*sizes.explicit(target.window))


def _inside(window: Any, layers: int) -> TypeGuard[tuple[int, int]]:
    return bool(window) and isinstance(window[0], int) and 0 <= window[0] < layers


@dataclass(frozen=True)
class _Sizes:
    """The planner's arithmetic for one model and one kind of block."""

    counts: ParameterCounts
    blocks: int
    added: int
    first: int

    @property
    def layers(self) -> int:
        return len(self.counts.per_layer)

    @property
    def largest(self) -> int:
        """The most layers that may go: two blocks stay, one of them original."""
        return self.layers - max(MINIMUM_RESULT_LAYERS - self.blocks, 1)

    def removed(self, count: int) -> int:
        # Layers of one model may differ in size; before scoring only their mean is known.
        return round(count * sum(self.counts.per_layer) / self.layers)

    def net(self, count: int) -> float:
        return (self.removed(count) - self.added) / self.counts.dense

    def at(self, count: int) -> WindowSize:
        return WindowSize(count, self.blocks, self.added, self.removed(count), self.counts.dense)

    def at_window(self, start: int, end: int) -> WindowSize:
        return WindowSize(
            end - start, self.blocks, self.added, sum(self.counts.per_layer[start:end]), self.counts.dense
        )

    def closest(self, sparsity: object) -> int:
        pointer = "/target/sparsity"
        if isinstance(sparsity, bool) or not isinstance(sparsity, int | float) or not 0 < sparsity < 1:
            raise SelectionError(
                pointer, f"sparsity must be a number between 0 and 1, both excluded; it is {sparsity!r}"
            )
        shrinking = [count for count in range(max(1, self.blocks), self.layers + 1) if self.net(count) > 0]
        usable = [count for count in shrinking if count <= self.largest]
        if not usable:
            raise SelectionError(
                pointer,
                f"a model of {self.layers} layers has no window whose removal leaves {MINIMUM_RESULT_LAYERS} blocks "
                "and makes it smaller; choose a deeper model or replacement.kind none",
            )
        best = min(shrinking, key=lambda count: (abs(self.net(count) - sparsity), count))
        if best > self.largest:
            raise SelectionError(
                pointer,
                f"sparsity {sparsity} would remove {best} of {self.layers} layers, but a result must keep at least "
                f"{MINIMUM_RESULT_LAYERS} decoder blocks, one of them original; the reachable range is "
                f"{self.net(usable[0]):.4f} to {self.net(usable[-1]):.4f}",
            )
        return best

    def fewer(self, layers: object) -> int:
        most = self.largest - self.blocks
        if isinstance(layers, bool) or not isinstance(layers, int) or not 1 <= layers <= most:
            allowed = f"it must be a whole number from 1 to {most}" if most >= 1 else "the model is too shallow for any"
            raise SelectionError(
                "/target/layers",
                f"layers is {layers!r} but of {self.layers} layers at least {MINIMUM_RESULT_LAYERS} decoder blocks "
                f"must be kept, one of them original: {allowed}",
            )
        return layers + self.blocks

    def explicit(self, window: Sequence[Any]) -> tuple[int, int]:
        pointer = "/target/window"
        whole = len(window) == 2 and all(isinstance(edge, int) and not isinstance(edge, bool) for edge in window)
        if not whole or not 0 <= window[0] < window[1] <= self.layers:
            raise SelectionError(
                pointer,
                f"window is {list(window)!r} but must be [start, end] with 0 <= start < end <= {self.layers}, "
                "the number of layers (end is not removed)",
            )
        start, end = window
        if end - start > self.largest:
            raise SelectionError(
                pointer,
                f"window {[start, end]} removes {end - start} of {self.layers} layers; at most {self.largest} may go, "
                f"so that {MINIMUM_RESULT_LAYERS} decoder blocks stay, one of them original",
            )
        if end - start < self.blocks:
            raise SelectionError(
                "/replacement/layers",
                f"layers is {self.blocks}, more than the {end - start} of window {[start, end]} that they replace",
            )
        if start < self.first:
            raise SelectionError(
                pointer,
                f"window {[start, end]} starts at layer 0, but linear_merged folds into the layer in front of the "
                "window; start at 1 or later, or use linear_residual",
            )
        return start, end


def make_plan(
    config: Config,
    target: Target,
    kind: BlockKind,
    output_format: OutputFormat = "auto",
    *,
    counts: ParameterCounts | None = None,
    layers: int = 1,
    training_tokens: int = 0,
    stored_bytes: int = 2,
    compute_bytes: int = 4,
) -> Plan:
    """Answer a dry run from a config alone, or with `counts` from a checkpoint's headers.

    Args:
        config: parsed config.json.
        target: what is asked for.
        kind: the replacement.
        output_format: `native` counts a `swiglu` or `ffn` block as the full layer that it is written as.
        counts: parameters as the headers tell; the family's formula where None.
        layers: new layers of kind `layer`.
        training_tokens: distinct tokens whose activations are stored, 2 x tokens x hidden x `stored_bytes`.
        stored_bytes: bytes per number in the checkpoint and in the activation store.
        compute_bytes: bytes per number in memory; 4 on CPU, where computing is in float32.

    Raises:
        SelectionError, ReplacementRefused, NativeFormRefused, NoFormula: see `window_size`.
    """
    size = window_size(config, target, kind, output_format, counts, layers)
    window = tuple(range(*target.window)) if target.window is not None else None
    fitted = kind in architectures.FITTED_KINDS
    trained = 0 if kind == "none" or fitted else training_tokens
    fit_bytes = architectures.hidden_size(config) ** 2 * _FIT_BYTES_PER_NUMBER if fitted else 0
    activations = 2 * trained * architectures.hidden_size(config) * stored_bytes
    return Plan(
        removed_layers=window,
        removed_count=size.removed_count,
        added_parameters=size.added_parameters,
        dense_parameters=size.dense_parameters,
        pruned_parameters=size.pruned_parameters,
        sparsity=size.sparsity,
        # The activations are gone before the checkpoint is written; the dense model is read where it lies.
        disk_bytes=max(activations, size.pruned_parameters * stored_bytes),
        # The largest stages: the dense model plus training, or dense and pruned side by side in the benchmark.
        memory_bytes=_PROCESS_BYTES
        + size.dense_parameters * compute_bytes
        + max(size.added_parameters * _TRAINING_BYTES_PER_PARAMETER, fit_bytes, size.pruned_parameters * compute_bytes),
    )


def best_window(
    table: Sequence[Sequence[float | None]], size: int, better: Better = "higher", first: int = 0
) -> tuple[int, float]:
    """Return (start, score) of the window of `size` layers with the best score; the first one on a tie.

    Args:
        table: ``table[i][n - 1]`` = score of [i, i + n), None where i + n exceeds the model.
        size: layers in the window, at least 1.
        better: whether the best score is the highest or the lowest.
        first: the lowest start that is allowed.

    Raises:
        SelectionError: no window of that size fits, or its scores are not finite.
    """
    scores = [(row[size - 1], start) for start, row in enumerate(table) if start >= first and size <= len(row)]
    finite = [(score, start) for score, start in scores if score is not None and math.isfinite(score)]
    if not finite:
        raise SelectionError(
            "/target", f"no window of {size} layers has a finite score in a model of {len(table)} layers"
        )
    sign = 1 if better == "higher" else -1
    score, start = max(finite, key=lambda pair: (sign * pair[0], -pair[1]))
    return start, score
