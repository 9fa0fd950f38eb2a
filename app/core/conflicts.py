"""Which fields of a request speak against each other: several windows, and what serves the checkpoint."""

from __future__ import annotations

from app.core import architectures
from app.core.architectures import BlockKind, OutputFormat
from app.core.selection import Selection, SelectionError, Target

_ALONE: frozenset[BlockKind] = frozenset({"ffn", "swiglu", "linear_residual"})
"""Kinds that end in custom code, which has a place for one block."""


def backend_refusal(backend: str, kind: BlockKind, output_format: OutputFormat) -> str | None:
    """Return why a backend of the benchmark cannot run the checkpoint; None where it can.

    Args:
        backend: what generates.
        kind: the replacement.
        output_format: of the checkpoint.
    """
    if backend != "vllm" or kind not in _ALONE or output_format == "native":
        return None
    native = "" if kind == "linear_residual" else "output.format native, "
    return (
        f"{kind} ends in a checkpoint with code of its own for transformers, which vLLM does not run; use {native}"
        "replacement.kind layer, linear_merged or none, or leave benchmark.backend out to measure with transformers"
    )


def check_selection(
    selection: Selection, target: Target, kind: BlockKind, output_format: OutputFormat, metric: str, adaptive: bool
) -> None:
    """Refuse what several windows or rounds cannot be combined with.

    Args:
        selection: windows and rounds.
        target: what is asked for.
        kind: the replacement.
        output_format: of the checkpoint.
        metric: what windows are scored by.
        adaptive: whether scoring may end early.

    Raises:
        SelectionError: under the pointer of the field that does not fit the others.
        ReplacementRefused: the kind ends in a checkpoint that has a place for one block.
    """
    iterative = selection.mode == "iterative"
    if iterative and selection.rounds < 2:
        raise SelectionError(
            "/selection/rounds",
            f"rounds is {selection.rounds}, but iterative needs at least 2; leave mode out for one",
        )
    if not iterative and selection.rounds != 1:
        raise SelectionError(
            "/selection/rounds",
            f"rounds is {selection.rounds}, but one_shot removes everything in one; add mode iterative, or use windows "
            "for several windows of one score table",
        )
    if iterative and selection.windows != 1:
        raise SelectionError(
            "/selection/windows",
            f"windows is {selection.windows}, but each round of iterative removes one window; use rounds or windows",
        )
    if selection.replacements == 1:
        return
    if target.window is not None:
        raise SelectionError(
            "/selection/mode" if iterative else "/selection/windows",
            f"target.window names the one window to replace, and {selection.what} would choose their own; leave "
            "selection out, or give target.sparsity or target.layers",
        )
    if kind in _ALONE and output_format != "native":
        native = "" if kind == "linear_residual" else f", or {kind} with output.format native"
        raise architectures.ReplacementRefused(
            f"{kind} ends in a checkpoint with code of its own, which has a place for one block and not for the "
            f"{selection.what}; use replacement.kind layer, linear_merged or none{native}"
        )
    if iterative:
        return
    if metric in ("perplexity", "task"):
        raise SelectionError(
            "/scoring/metric",
            f"metric {metric} scores windows of one size, and the sizes of {selection.what} are chosen together; use "
            "cosine, angular, euclidean or dot, or selection.mode iterative",
        )
    if adaptive:
        raise SelectionError(
            "/scoring/adaptive",
            f"adaptive compares the best window with the runner-up, and {selection.what} are chosen together; leave it "
            "out or use false",
        )
