"""The answer to a dry run: what a target comes to in a model, told before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from app.core import architectures
from app.core.architectures import BlockKind, Config, OutputFormat
from app.core.selection import ONE_WINDOW, ParameterCounts, Selection, Target, round_layers, window_size

_PROCESS_BYTES = 500_000_000  # interpreter, torch and the allocator's slack, as measured on a small model
TRAINING_BYTES_PER_PARAMETER: Final = 20  # float32: weight, gradient, two AdamW moments, the best state's copy
FIT_BYTES_PER_NUMBER: Final = 64  # float64: two d x d sums of the fitted and the held-out data, and four to solve with


@dataclass(frozen=True)
class Plan:
    """What a dry run answers.

    Attributes:
        removed_layers: None when only scoring can tell.
        removed_count: layers that go over all windows or rounds.
        removed_parameters: what they weigh.
        replacements: how many windows get a replacement of their own.
        round_layers: the layers that each round removes; one number where there is one round.
        added_parameters: of all replacements together.
        dense_parameters: before.
        pruned_parameters: after.
        sparsity: net share of the dense model's parameters that is gone.
        disk_bytes: what a job writes at most.
        memory_bytes: what it holds at most.
    """

    removed_layers: tuple[int, ...] | None
    removed_count: int
    removed_parameters: int
    replacements: int
    round_layers: tuple[int, ...]
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
            "replacements": {
                "count": self.replacements,
                "parameters_each": self.added_parameters // self.replacements,
                "removed_parameters": self.removed_parameters,
                "share_given_back": self.added_parameters / self.removed_parameters,
            },
            "rounds": list(self.round_layers),
            "parameters": {"dense": self.dense_parameters, "pruned": self.pruned_parameters},
            "sparsity": self.sparsity,
            "estimated": {"disk_bytes": self.disk_bytes, "memory_bytes": self.memory_bytes},
        }


def make_plan(
    config: Config,
    target: Target,
    kind: BlockKind,
    output_format: OutputFormat = "auto",
    *,
    counts: ParameterCounts | None = None,
    layers: int = 1,
    selection: Selection = ONE_WINDOW,
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
        selection: into how many windows or rounds the target is split.
        training_tokens: distinct tokens whose activations are stored, 2 x tokens x hidden x `stored_bytes`.
        stored_bytes: bytes per number in the checkpoint and in the activation store.
        compute_bytes: bytes per number in memory; 4 on CPU, where computing is in float32.

    Raises:
        SelectionError, ReplacementRefused, NativeFormRefused, NoFormula: see `window_size`.
    """
    size = window_size(config, target, kind, output_format, counts, layers, selection)
    window = tuple(range(*target.window)) if target.window is not None else None
    fitted = kind in architectures.FITTED_KINDS
    trained = 0 if kind == "none" or fitted else training_tokens
    hidden = architectures.hidden_size(config)
    fit_bytes = hidden**2 * FIT_BYTES_PER_NUMBER if fitted else 0
    activations = 2 * trained * hidden * stored_bytes
    each_added = size.added_parameters // selection.replacements
    rounds = selection.rounds if selection.mode == "iterative" else 1
    fewer = round_layers(size, rounds)
    written = size.pruned_parameters * stored_bytes
    # Of several rounds the checkpoint of the one before lies beside; the first one's is the largest.
    gone = (size.removed_parameters - size.added_parameters) * fewer[0] // max(1, sum(fewer))
    beside = (size.dense_parameters - gone) * stored_bytes if rounds > 1 else 0
    return Plan(
        removed_layers=window,
        removed_count=size.removed_count,
        removed_parameters=size.removed_parameters,
        replacements=selection.replacements,
        round_layers=tuple(count + size.blocks_added // rounds for count in fewer),
        added_parameters=size.added_parameters,
        dense_parameters=size.dense_parameters,
        pruned_parameters=size.pruned_parameters,
        sparsity=size.sparsity,
        # The activations are gone before the checkpoint is written; the dense model is read where it lies.
        disk_bytes=beside + max(activations, written),
        # The largest stages: the dense model plus training, or dense and pruned side by side in the benchmark.
        memory_bytes=_PROCESS_BYTES
        + size.dense_parameters * compute_bytes
        + max(each_added * TRAINING_BYTES_PER_PARAMETER, fit_bytes, size.pruned_parameters * compute_bytes),
    )
