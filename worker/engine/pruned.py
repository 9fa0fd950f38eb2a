"""The pruned model in memory: the dense one with its window swapped, and healed where the recipe says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from safetensors.torch import load_file
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
    selection = context.read_json("selection.json")
    start, end = selection["start"], selection["end"]
    rounded, updates = context.recipe.output.dtype, updates_of(context)
    with ExitStack() as until_done:
        if updates:
            if not isinstance(decoder, Decoder):
                raise EngineError("needs_resident", "a healed model has to be whole in memory to be compared with")
            layers = discover(decoder.config, {n: e.shape for n, e in read_checkpoint(context.model).entries()}).layers
            until_done.enter_context(healed(decoder, updates, layers, written_dtype(context, decoder)))
        block = trained_block(context, decoder, start, end, updates)
        if rounded:
            until_done.enter_context(decoder.rounded(dtype_of(rounded)))
        until_done.enter_context(decoder.with_layers(*stands_for(context.recipe.replacement.kind, start, end), block))
        yield


def trained_block(
    context: StageContext, decoder: LayeredModel, start: int, end: int, updates: Updates
) -> nn.Module | None:
    """Return the replacement with the weights that the train stage kept, and their updates; None for `none`."""
    recipe = context.recipe
    kind = recipe.replacement.kind
    if kind == "none":
        return None
    # The weights inherited here are all overwritten, but for the rest of the layer that a map is folded into.
    start_from = Start(decoder, start, end, "first", recipe.seed, lambda _: 0.0, recipe.replacement.layers)
    block = build(kind, start_from)
    assert block is not None
    wanted = written_dtype(context, decoder)
    tensors = updated_replacement(load_file(context.workspace / "replacement.safetensors"), updates)
    rounded = {name: tensor.to(wanted) for name, tensor in tensors.items()}
    block.load_state_dict(rounded, strict=kind != "linear_merged")
    if recipe.output.dtype is not None:
        block.to(wanted)
    return block.to(decoder.device, decoder.dtype).eval()


def written_dtype(context: StageContext, decoder: LayeredModel) -> torch.dtype:
    """Return what most weights of the written checkpoint are stored in."""
    wanted = context.recipe.output.dtype
    return decoder.stored_dtype if wanted is None else dtype_of(wanted)
