"""The pruned model in memory: the dense one with its windows swapped, and healed where the recipe says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from app.core.discovery import discover
from app.core.safetensors_file import read_checkpoint
from worker.engine.context import StageContext
from worker.engine.decoder import Decoder
from worker.engine.device import dtype_of
from worker.engine.errors import EngineError
from worker.engine.healing.updates import Updates, healed, updated_replacement, updates_of
from worker.engine.hidden_states import LayeredModel
from worker.engine.replacements import build, stands_for
from worker.engine.replacements.starts import Start


@contextmanager
def pruned(context: StageContext, decoder: LayeredModel) -> Iterator[None]:
    """Have `decoder` compute with the weights of the written checkpoint until the context ends.

    What is streamed heeds this in `logits` only.

    Raises:
        EngineError: `needs_resident` where a healed model is streamed.
    """
    rounded, updates = context.recipe.output.dtype, updates_of(context)
    with ExitStack() as until_done:
        if updates:
            if not isinstance(decoder, Decoder):
                raise EngineError("needs_resident", "a healed model has to be whole in memory to be compared with")
            checkpoint = read_checkpoint(context.model)
            layers = discover(decoder.config, {name: entry.shape for name, entry in checkpoint.entries()}).layers
            until_done.enter_context(healed(decoder, updates, layers, written_dtype(context, decoder), checkpoint))
        blocks = trained_blocks(context, decoder, updates)
        if rounded:
            until_done.enter_context(decoder.rounded(dtype_of(rounded)))
        until_done.enter_context(swapped(decoder, blocks))
        yield


@dataclass(frozen=True)
class InPlace:
    """A block, and the layers [first, end) of the dense model that it stands for."""

    first: int
    end: int
    block: nn.Module | None


def trained_blocks(context: StageContext, decoder: LayeredModel, updates: Updates) -> list[InPlace]:
    """Return each window's replacement with the weights that the train stage kept, and their updates, in order."""
    kind = context.recipe.replacement.kind
    windows = [(window["start"], window["end"]) for window in context.read_json("selection.json")["windows"]]
    return [
        InPlace(*stands_for(kind, start, end), _trained_block(context, decoder, number, start, end, updates))
        for number, (start, end) in enumerate(windows)
    ]


@contextmanager
def swapped(decoder: LayeredModel, blocks: Sequence[InPlace]) -> Iterator[None]:
    """Have blocks in their places until the context ends."""
    with ExitStack() as until_done:
        for place in reversed(blocks):  # from the back, so that the numbers in front stay
            until_done.enter_context(decoder.with_layers(place.first, place.end, place.block))
        yield


def _trained_block(
    context: StageContext, decoder: LayeredModel, window: int, start: int, end: int, updates: Updates
) -> nn.Module | None:
    recipe = context.recipe
    kind = recipe.replacement.kind
    if kind == "none":
        return None
    # The weights inherited here are all overwritten, but for the rest of the layer that a map is folded into.
    start_from = Start(decoder, start, end, "first", recipe.seed, lambda _: 0.0, recipe.replacement.layers)
    block = build(kind, start_from)
    assert block is not None
    wanted = written_dtype(context, decoder)
    tensors = updated_replacement(context, window, updates)
    rounded = {name: tensor.to(wanted) for name, tensor in tensors.items()}
    block.load_state_dict(rounded, strict=kind != "linear_merged")
    if recipe.output.dtype is not None:
        block.to(wanted)
    return block.to(decoder.device, decoder.dtype).eval()


def written_dtype(context: StageContext, decoder: LayeredModel) -> torch.dtype:
    """Return what most weights of the written checkpoint are stored in."""
    wanted = context.recipe.output.dtype
    return decoder.stored_dtype if wanted is None else dtype_of(wanted)
