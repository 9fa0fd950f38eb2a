"""From a target to sizes: how many layers go, in how many windows or rounds, and what the result weighs.

The target is net of the replacement: (removed - added) parameters over all parameters of the dense model, and the
window size is the one whose net ratio is closest to the target (LLM-Streamline, arXiv 2403.19135: Llama-2-7B at 25 %
gives 8 layers for `none`, 9 for `ffn`, 9 removed and 1 added for `layer`). Works from parameter counts alone: the
config's formula, or the sizes that the safetensors headers tell. Which windows go is for `app.core.windows` to say.
"""

from __future__ import annotations

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

Mode = Literal["one_shot", "iterative"]


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
class Selection:
    """How the layers that go are spread: `windows` of one score table, or `rounds` of which each scores anew."""

    mode: Mode = "one_shot"
    windows: int = 1
    rounds: int = 1

    @property
    def replacements(self) -> int:
        """How many windows get a replacement of their own, over all rounds."""
        return self.rounds if self.mode == "iterative" else self.windows

    @property
    def what(self) -> str:
        """Its replacements in words."""
        noun = "round" if self.mode == "iterative" else "window"
        return f"{self.replacements} {noun}{'' if self.replacements == 1 else 's'}"


ONE_WINDOW = Selection()
"""One window of one score table."""


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
    """How many layers go and what comes in, over all windows or rounds, before it is known which ones."""

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


def round_layers(size: WindowSize, rounds: int) -> tuple[int, ...]:
    """Return how many decoder blocks fewer each round leaves: as even as can be, the earlier ones more."""
    share, rest = divmod(size.removed_count - size.blocks_added, rounds)
    return tuple(share + (number < rest) for number in range(rounds))


def least_window(
    config: Config, kind: BlockKind, output_format: OutputFormat, counts: ParameterCounts, layers: int = 1
) -> int:
    """Return the fewest layers whose replacement makes the model smaller.

    Raises:
        SelectionError: no window does.
    """
    return _sizes(config, kind, output_format, counts, layers, ONE_WINDOW).least


def window_size(
    config: Config,
    target: Target,
    kind: BlockKind,
    output_format: OutputFormat = "auto",
    counts: ParameterCounts | None = None,
    layers: int = 1,
    selection: Selection = ONE_WINDOW,
) -> WindowSize:
    """Return how many layers a target removes; `layers` is the number of new layers of kind `layer`.

    For a sparsity target the size is the one whose net ratio is closest, the smaller one on a tie, and at least the
    smallest that makes the model smaller at all. Each window or round of `selection` adds a replacement of its own and
    must make the model smaller; the layers are those of all of them together, and a round that takes an earlier one's
    replacement out counts it.

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
    # A layer that is put in is as large as the window's first; before scoring only the layers' mean is known.
    first = target.window[0] if _inside(target.window, len(counts.per_layer)) else None
    sizes = _sizes(config, kind, output_format, counts, layers, selection, first)
    if target.sparsity is not None:
        return sizes.at(sizes.closest(target.sparsity))
    if target.layers is not None:
        return sizes.at(sizes.fewer(target.layers))
    assert target.window is not None
    return sizes.at_window(*sizes.explicit(target.window))


def _sizes(
    config: Config, kind: BlockKind, output_format: OutputFormat, counts: ParameterCounts, layers: int,
    selection: Selection, first: int | None = None,
) -> _Sizes:  # fmt: skip
    blocks = blocks_added(kind, layers)
    mean = round(sum(counts.per_layer) / len(counts.per_layer))
    per_block = architectures.block_parameters(
        config, kind, output_format, mean if first is None else counts.per_layer[first]
    )
    return _Sizes(counts, blocks, max(blocks, 1) * per_block, first_start(kind), selection)


def _inside(window: Any, layers: int) -> TypeGuard[tuple[int, int]]:
    return bool(window) and isinstance(window[0], int) and 0 <= window[0] < layers


@dataclass(frozen=True)
class _Sizes:
    """The planner's arithmetic for one model, one kind of block and a number of windows or rounds.

    `blocks` and `added` are the decoder blocks and the parameters of one replacement; `first` is the lowest layer that
    a window may start at.
    """

    counts: ParameterCounts
    blocks: int
    added: int
    first: int
    selection: Selection

    @property
    def layers(self) -> int:
        return len(self.counts.per_layer)

    @property
    def times(self) -> int:
        return self.selection.replacements

    @property
    def all_there_are(self) -> int:
        """The layers of the model, and those that all rounds but the last put in: any of them may go."""
        return self.layers + ((self.times - 1) * self.blocks if self.selection.mode == "iterative" else 0)

    @property
    def largest(self) -> int:
        """The most layers that may go: two blocks stay, one of them original, and one between any two windows."""
        if self.selection.mode == "iterative" or self.times == 1:
            return self.all_there_are - max(MINIMUM_RESULT_LAYERS - self.blocks, 1)
        return self.layers - max(MINIMUM_RESULT_LAYERS - self.times * self.blocks, self.times - 1 + self.first)

    @property
    def least(self) -> int:
        """The fewest layers of one window that make the model smaller."""
        sizes = (count for count in range(max(1, self.blocks), self.layers + 1) if self.removed(count) > self.added)
        found = next(sizes, None)
        if found is None or found * self.times > self.largest:
            raise SelectionError("/target", self._too_shallow())
        return found

    def _too_shallow(self) -> str:
        what = "no window" if self.times == 1 else f"no room for {self.selection.what}"
        return (
            f"a model of {self.layers} layers has {what} whose removal leaves {MINIMUM_RESULT_LAYERS} blocks "
            "and makes it smaller; choose a deeper model or replacement.kind none"
        )

    def removed(self, count: int) -> int:
        # Layers of one model may differ in size; before scoring only their mean is known.
        return round(count * sum(self.counts.per_layer) / self.layers)

    def net(self, count: int) -> float:
        return (self.removed(count) - self.times * self.added) / self.counts.dense

    def at(self, count: int) -> WindowSize:
        times = self.times
        return WindowSize(count, times * self.blocks, times * self.added, self.removed(count), self.counts.dense)

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
        shrinking = [n for n in range(max(1, self.blocks), self.all_there_are + 1) if self.net(n) > 0]
        try:
            least = self.times * self.least
        except SelectionError as error:
            raise SelectionError(pointer, str(error)) from None
        best = min(shrinking, key=lambda count: (abs(self.net(count) - sparsity), count))
        reachable = f"the reachable range is {self.net(least):.4f} to {self.net(self.largest):.4f}"
        if best > self.largest:
            raise SelectionError(
                pointer,
                f"sparsity {sparsity} would remove {best} of {self.all_there_are} layers, but a result must keep at "
                f"least {MINIMUM_RESULT_LAYERS} decoder blocks, one of them original{self._price()}; {reachable}",
            )
        if best < least:
            raise SelectionError(
                pointer,
                f"sparsity {sparsity} is less than {self.selection.what} make together, each of at least {self.least} "
                f"layers{self._price()}; {reachable}, and fewer {self.selection.what.split()[1]} reach less",
            )
        return best

    def _price(self) -> str:
        """What several replacements cost, in words."""
        if self.times == 1 or not self.added:
            return ""
        share = self.times * self.added / self.counts.dense
        return f" ({self.times} replacements of {self.added:,} parameters give {share:.4f} of the model back)"

    def fewer(self, layers: object) -> int:
        most, blocks = self.largest - self.times * self.blocks, self.times * self.blocks
        least = 1 if self.times == 1 else self.times * self.least - blocks
        if isinstance(layers, bool) or not isinstance(layers, int) or not least <= layers <= most:
            allowed = (
                f"it must be a whole number from {least} to {most}"
                if most >= least
                else "the model is too shallow for any"
            )
            price = "" if self.times == 1 else f", and {self.selection.what} each make it smaller{self._price()}"
            raise SelectionError(
                "/target/layers",
                f"layers is {layers!r} but of {self.layers} layers at least {MINIMUM_RESULT_LAYERS} decoder blocks "
                f"must be kept, one of them original{price}: {allowed}",
            )
        return layers + blocks

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
