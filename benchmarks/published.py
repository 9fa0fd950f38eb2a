"""The published procedure (the `layer` variant of LLM-Streamline's code), as far as cost and quality depend on it.

Built from transformers and torch alone, for rows of `benchmarks.quality`: the yardstick, measured in the same run and
on the same machine. The whole model runs with its head, all hidden states of a batch are kept, the window's are put
aside in memory; the first pruned layer is trained on them for 2 epochs of AdamW at 2e-4 (warm-up 1 %, cosine to 5e-6,
weight decay 1e-3, clipping at 5). The last state is kept: what the published code keeps as its best state is an alias
of the weights that go on being trained.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worker.engine.device import stored_dtype

BATCH = 8
EPOCHS = 2
LEARNING_RATE, LOWEST_LEARNING_RATE = 2e-4, 5e-6
WEIGHT_DECAY = 1e-3
LARGEST_GRADIENT_NORM = 5.0
WARMUP_SHARE = 0.01
SCORED_SEQUENCES = 64


def _rate(step: int, steps: int) -> float:
    warmup = max(1, round(steps * WARMUP_SHARE))
    if step < warmup:
        return LEARNING_RATE * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return LOWEST_LEARNING_RATE + (LEARNING_RATE - LOWEST_LEARNING_RATE) * (1 + math.cos(math.pi * done)) / 2


@torch.no_grad()
def _score(model: Any, windows: Tensor, size: int) -> int:
    """Return the start of the window of `size` layers with the highest cosine; the last one ends before h_L."""
    layers = model.config.num_hidden_layers
    sums = torch.zeros(layers - size)
    for ids in windows:
        states = model(ids[None].long(), output_hidden_states=True).hidden_states
        for start in range(len(sums)):
            sums[start] += nn.functional.cosine_similarity(states[start], states[start + size], dim=-1).mean()
    return int(sums.argmax())


@torch.no_grad()
def _capture(model: Any, windows: Tensor, start: int, end: int) -> tuple[list[Tensor], list[Tensor]]:
    before: list[Tensor] = []
    after: list[Tensor] = []
    for ids in torch.split(windows, BATCH):
        states = model(ids.long(), output_hidden_states=True).hidden_states
        before += states[start].clone()
        after += states[end].clone()
    return before, after


def _train(model: Any, block: nn.Module, pairs: tuple[list[Tensor], list[Tensor]], seed: int) -> None:
    before, after = pairs
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(block.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    places = torch.arange(len(before[0]))[None]
    rotary = model.model.rotary_emb(before[0][None], places)
    steps = EPOCHS * math.ceil(len(before) / BATCH)
    order = (i for _ in range(EPOCHS) for i in torch.split(torch.randperm(len(before), generator=generator), BATCH))
    for step, indices in enumerate(order):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, steps)
        inputs = torch.stack([before[i] for i in indices.tolist()])
        wanted = torch.stack([after[i] for i in indices.tolist()])
        made = block(inputs, position_embeddings=rotary, position_ids=places)
        loss = nn.functional.mse_loss(made[0] if isinstance(made, tuple) else made, wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(block.parameters(), LARGEST_GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()


def compress(source: Path, windows: Tensor, fewer: int, out: Path, seed: int) -> dict[str, float]:
    """Write the model in `source`, a Llama, with `fewer` layers fewer to `out`; return the seconds of each part.

    Args:
        source: a model directory.
        windows: token ids [sequences, length].
        fewer: the window has one layer more, since one is put in.
        out: where the checkpoint goes.
        seed: of the order of the batches.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval().requires_grad_(False)
    stored = stored_dtype(source)
    marks = [time.perf_counter()]
    start = _score(model, windows[:SCORED_SEQUENCES], fewer + 1)
    end = start + fewer + 1
    marks.append(time.perf_counter())
    pairs = _capture(model, windows, start, end)
    marks.append(time.perf_counter())
    block = copy.deepcopy(model.model.layers[start]).requires_grad_(True)
    _train(model, block, pairs, seed)
    marks.append(time.perf_counter())
    model.model.layers[start] = block
    del model.model.layers[start + 1 : end]
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = index
    model.config.num_hidden_layers -= fewer
    model.to(stored).save_pretrained(out)
    AutoTokenizer.from_pretrained(source).save_pretrained(out)
    marks.append(time.perf_counter())
    names = ("score", "capture", "train", "assemble")
    seconds = [later - earlier for earlier, later in itertools.pairwise(marks)]
    return {"start": start, "end": end, **dict(zip(names, seconds, strict=True))}
