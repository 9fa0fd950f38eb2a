"""The dense model's likelihood of a text, with and without the layers that go; the former is kept between runs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from worker.engine.code_version import code_version
from worker.engine.context import StageContext, sha256_of, write_bytes
from worker.engine.decoder import Decoder
from worker.engine.device import sequences_at_once
from worker.engine.evaluation.next_token import NextToken
from worker.engine.evaluation.perplexity import LogLikelihood, likelihoods
from worker.engine.execution import shared_model, within_memory
from worker.engine.fetch import OUTPUT as MODEL
from worker.engine.hidden_states import LayeredModel, Layers, without


def dense_and_cut(
    context: StageContext, name: str, windows: Tensor, given: Tensor, cut: Layers, progress: Callable[[int], None]
) -> tuple[dict[str, LogLikelihood], NextToken]:
    """Return the likelihoods `dense` and `cut` of a text, and what the pruned model is to be compared with.

    Args:
        context: of the stage.
        name: of the text.
        windows: token ids [sequences, length].
        given: [sequences], tokens at the start of each that are context only.
        cut: the layers that go.
        progress: told the number of sequences done since the last call.
    """
    kept = _kept(context, windows, given)
    if isinstance(shared_model(context), Decoder) and (read := _read(kept)) is not None:
        context.emit.log(f"{name}: the dense model's perplexity is known from an earlier run")
        dense, states = read
        progress(len(windows))
        work = partial(_cut_alone, windows=windows, given=given, cut=cut, progress=progress)
        alone = within_memory(context, sequences_at_once(context.device, windows.shape[1]), work)
        return {"dense": dense, "cut": alone}, NextToken(windows, states)
    found = NextToken(windows)

    def keep(variant: str, first: int, hidden: Tensor, _: object) -> None:
        if variant == "dense":
            found.keep(first, hidden)

    both = partial(likelihoods, windows=windows, given=given, progress=progress, cut=cut, watch=keep)
    sums = within_memory(context, sequences_at_once(context.device, windows.shape[1]), both)
    if found.states is not None and math.isfinite(sums["dense"].nats):
        known = {
            "states": found.states.contiguous(),
            "nats": torch.tensor(sums["dense"].window_nats, dtype=torch.float64),
            "tokens": torch.tensor(sums["dense"].window_tokens),
        }
        write_bytes(kept, save(known))
    return sums, found


def _cut_alone(
    model: LayeredModel, size: int, *, windows: Tensor, given: Tensor, cut: Layers, progress: Callable[[int], None]
) -> LogLikelihood:
    if model.execution == "streamed":  # memory ran out meanwhile; its layers go by for both
        return likelihoods(model, size, windows=windows, given=given, progress=progress, cut=cut)["cut"]
    with without(model, cut):
        return likelihoods(model, size, windows=windows, given=given, progress=progress)["dense"]


def _kept(context: StageContext, windows: Tensor, given: Tensor) -> Path:
    tokens = hashlib.sha256(given.numpy().tobytes())
    for window in windows:  # one by one: those that overlap are views of one text
        tokens.update(window.to(torch.int64).numpy().tobytes())
    parts = {
        "model": context.read_home_json(MODEL)["hash"], "length": windows.shape[1], "code": code_version(),
        "tokens": tokens.hexdigest(), "device": context.device,
    }  # fmt: skip
    return context.cache / "dense" / f"text-{sha256_of(parts)[:32]}.safetensors"


def _read(path: Path) -> tuple[LogLikelihood, Tensor] | None:
    """What was kept, or None: nothing, or a file that is damaged and is measured again."""
    try:
        known = load_file(path)
        return LogLikelihood(known["nats"].tolist(), known["tokens"].tolist()), known["states"]
    except (OSError, SafetensorError, KeyError):
        return None
