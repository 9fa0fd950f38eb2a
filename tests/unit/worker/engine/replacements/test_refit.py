"""What a start in closed form promises: the best down projection for the block's own features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from app.core.architectures import BlockKind
from worker.engine.activation_store import ActivationStore
from worker.engine.decoder import Decoder
from worker.engine.errors import EngineError
from worker.engine.replacements import build
from worker.engine.replacements.refit import down_projection, refit
from worker.engine.replacements.starts import Start
from worker.engine.training import Arguments, Pairs
from worker.engine.training.stage import block_arguments

START, END = 1, 4


def prepared(decoder: Decoder, kind: BlockKind, layers: int, directory: Path) -> tuple[nn.Module, Pairs, Arguments]:
    ids = torch.randint(2, 64, (40, 12), generator=torch.Generator().manual_seed(1))
    pairs = Pairs.split(ActivationStore.capture(decoder, ids, START, END, directory, batch_size=8), ids)
    arguments = block_arguments(decoder, START, 12, layers if kind == "layer" else 0)
    start = Start(decoder, START, END, "closed_form", 0, lambda made: pairs.error(made, arguments, 8), layers)
    block = build(kind, start)
    assert block is not None
    return block.float(), pairs, arguments


@pytest.mark.parametrize(("kind", "layers"), [("ffn", 1), ("swiglu", 1), ("layer", 1), ("layer", 2)])
def test_the_start_is_better_than_what_it_starts_from_in_every_family(
    decoder: Decoder, kind: BlockKind, layers: int, tmp_path: Path
) -> None:
    block, pairs, arguments = prepared(decoder, kind, layers, tmp_path)
    before = pairs.error(block, arguments, 8)
    solution = refit(block, down_projection(kind, block, decoder.family), pairs, arguments, 8)
    after = pairs.error(block, arguments, 8)
    assert solution.uncorrected == pytest.approx(before, rel=1e-4)
    assert after == pytest.approx(solution.held_out, rel=1e-3)
    assert after < before


def test_nothing_but_the_down_projection_changes(decoder: Decoder, tmp_path: Path) -> None:
    block, pairs, arguments = prepared(decoder, "layer", 1, tmp_path)
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    refit(block, down_projection("layer", block, decoder.family), pairs, arguments, 8)
    changed = {name for name, tensor in block.state_dict().items() if not torch.equal(tensor, before[name])}
    down = decoder.family.mlp_down
    assert changed == {name for name in before if name.startswith(f"{down}.")}


def test_a_projection_that_ends_in_a_norm_is_refused(llama: Decoder, tmp_path: Path) -> None:
    block, pairs, arguments = prepared(llama, "layer", 1, tmp_path)
    mlp = block.get_submodule("mlp")
    mlp.register_forward_hook(lambda _, __, output: nn.functional.layer_norm(output, output.shape[-1:]))
    with pytest.raises(EngineError, match="use replacement.init best") as caught:
        refit(block, down_projection("layer", block, llama.family), pairs, arguments, 8)
    assert caught.value.code == "replacement_refused"
