"""The evaluate stage: perplexity and samples of the dense, the cut and the written pruned model.

`cut` is the dense model without the removed layers and with nothing in their place: what the replacement has to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from app.core.architectures import max_positions
from worker.engine.context import StageContext
from worker.engine.decoder import Decoder, shared_decoder
from worker.engine.evaluation.perplexity import LogLikelihood, batches, negative_log_likelihood, ratio, text_bytes
from worker.engine.evaluation.samples import continuation, prompts_of
from worker.engine.export.loading import shared_written
from worker.engine.text import held_out_windows, text_windows

VARIANTS = ("dense", "cut", "pruned")


def run(context: StageContext) -> None:
    """Write `evaluation.json`: perplexities per text, and greedy samples, of dense, cut and pruned.

    Raises EngineError `text_too_short` or `bad_text` where an evaluation text is of no use.
    """
    selection = context.read_json("selection.json")
    start, end = selection["start"], selection["end"]
    dense = shared_decoder(context)
    pruned = shared_written(context)
    texts = _texts(context, dense)
    total = 3 * sum(len(windows) for windows in texts.values())
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        context.emit.progress(done, total, "sequences")

    report: dict[str, Any] = {}
    for name, windows in texts.items():
        report[name] = _of_text(dense, pruned, windows, (start, end), progress)
        context.emit.metric(**{f"perplexity/{name}/{variant}": report[name][variant] for variant in VARIANTS})
    context.write_json(
        "evaluation.json",
        {
            "perplexity": report,
            "held_out": not context.recipe.evaluation,
            "sequence_length": context.recipe.scoring.sequence_length,
            "samples": _samples(dense, pruned, next(iter(texts.values())), start, end),
        },
    )


def _texts(context: StageContext, decoder: Decoder) -> dict[str, Tensor]:
    """Return name -> windows [count, sequence_length]; without evaluation texts, what calibration held out."""
    recipe = context.recipe
    if not recipe.evaluation:
        return {f"{recipe.calibration.name} (held out)": held_out_windows(context, decoder.tokenizer)}
    texts: dict[str, Tensor] = {}
    for text in recipe.evaluation:
        name, copies = text.name, 1
        while name in texts:
            copies += 1
            name = f"{text.name} ({copies})"
        texts[name] = text_windows(text, decoder.tokenizer, recipe.scoring.sequence_length)
    return texts


def _of_text(
    dense: Decoder, pruned: Decoder, windows: Tensor, window: tuple[int, int], progress: Callable[[int], None]
) -> dict[str, Any]:
    sums = {variant: LogLikelihood() for variant in VARIANTS}
    for ids in batches(windows, dense.device):
        for variant, hidden in _hidden_of_dense_and_cut(dense, ids, *window):
            sums[variant].add(*negative_log_likelihood(dense.head, hidden, ids))
            progress(len(ids))
        sums["pruned"].add(*negative_log_likelihood(pruned.head, _last_hidden(pruned, ids), ids))
        progress(len(ids))
    size = text_bytes(windows, dense.tokenizer)
    for likelihood in sums.values():
        likelihood.text_bytes = size
    found: dict[str, Any] = {variant: sums[variant].perplexity for variant in VARIANTS}
    found["byte"] = {variant: sums[variant].byte_perplexity for variant in VARIANTS}
    found["ratio"] = ratio(found["pruned"], found["dense"])
    found["cut_ratio"] = ratio(found["cut"], found["dense"])
    found["retained"] = ratio(found["dense"], found["pruned"])
    found["tokens"], found["bytes"], found["sequences"] = sums["dense"].tokens, size, len(windows)
    return found


def _hidden_of_dense_and_cut(decoder: Decoder, ids: Tensor, start: int, end: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the last hidden states [batch, sequence, hidden] of the dense and of the cut model for one batch.

    Both run the same layers up to the window: the dense pass leaves h_start behind, and the cut one goes on from it.
    """
    kept: list[Tensor] = []
    with _watched_input(decoder.layers[start], kept) if start else _nothing():
        yield "dense", _last_hidden(decoder, ids)
    if not kept or end == len(decoder.layers):
        with decoder.with_layers(start, end):
            yield "cut", _last_hidden(decoder, ids)
        return
    with decoder.with_layers(0, end, _Given(kept[0])):
        yield "cut", _last_hidden(decoder, ids)


class _Given(nn.Module):
    """Stands in for the layers whose output is known already."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self._hidden = hidden

    def forward(self, _: Tensor) -> Tensor:
        return self._hidden


@contextmanager
def _watched_input(layer: nn.Module, kept: list[Tensor]) -> Iterator[None]:
    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept.append(args[0] if args else kwargs["hidden_states"])

    handle = layer.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@torch.inference_mode()
def _last_hidden(decoder: Decoder, ids: Tensor) -> Tensor:
    """Return the hidden states [batch, sequence, hidden] that the head is applied to."""
    hidden: Tensor = decoder.body(input_ids=ids, use_cache=False).last_hidden_state
    return hidden


def _samples(dense: Decoder, pruned: Decoder, windows: Tensor, start: int, end: int) -> list[dict[str, str]]:
    positions = max_positions(dense.config)
    samples = []
    for prompt in prompts_of(windows):
        sample = {"prompt": dense.tokenizer.decode(prompt[0], skip_special_tokens=True)}
        sample["dense"] = continuation(dense, prompt, positions)
        with dense.with_layers(start, end):
            sample["cut"] = continuation(dense, prompt, positions)
        sample["pruned"] = continuation(pruned, prompt, positions)
        samples.append(sample)
    return samples
