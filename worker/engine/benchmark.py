"""The benchmark stage: how fast the dense and the pruned model generate, measured side by side, rivals beside them.

All of them take turns within every round, so that a machine that slows down meanwhile slows each. Reported are medians
with minimum and quartiles, percentiles over single tokens, and speed-ups as medians of the rounds' own ratios.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from app.core.bootstrap import median
from app.core.safetensors_file import read_checkpoint
from worker.engine.context import StageContext
from worker.engine.decoder import Decoder
from worker.engine.execution import choose, shared_model, shared_written
from worker.engine.export.loading import load_written
from worker.engine.hidden_states import LayeredModel
from worker.engine.peak_memory import peak_growth
from worker.engine.vllm_backend import VllmGenerator
from worker.engine.weights import stored_parameters

WARM_UP_TOKENS = 4
VARIANTS = ("dense", "pruned")
PERCENTILES = (50, 90, 99)


@dataclass
class Timings:
    """Seconds of one model at one setting: of each round's parts, and of each decoded token of all rounds."""

    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)

    def add(self, first: float, others: Sequence[float]) -> None:
        """Take in a round: the seconds to the first token, and of each later one."""
        self.prefill.append(first)
        self.decode.append(sum(others))
        self.tokens += others


Generate = Callable[[Tensor, int], tuple[float, list[float]]]
"""Generates some tokens after a prompt [batch, sequence]; returns the seconds to the first, and per later one."""


def run(context: StageContext) -> None:
    """Write `benchmark.json`: speed per batch size and prompt length, FLOPs, memory and sizes of every model.

    A streamed model would be timed reading its weights for every token, which says nothing about it: it is left out,
    and `not_measured` says so, as it does of a rival that does not fit beside the others.
    """
    plan = context.recipe.benchmark
    missing: dict[str, str] = {}
    # The pruned one first, which has to fit before the dense one is asked whether it fits beside it.
    pruned = shared_written(context)
    models = {"dense": shared_model(context, beside=True), "pruned": pruned, **_rivals(context, missing)}
    decoders = {name: model for name, model in models.items() if isinstance(model, Decoder)}
    missing |= {
        name: f"the layers of the {name} model were streamed, so that it generates at the speed of the disk"
        for name in VARIANTS
        if name not in decoders
    }
    pairs = [(batch, prompt) for prompt in plan.prompt_tokens for batch in plan.batch_sizes] if decoders else []
    directories = {
        "dense": context.model,
        "pruned": context.workspace / "checkpoint",
        **{rival.name: Path(rival.path) for rival in plan.rivals},
    }
    generators = _generators(context, decoders, directories)
    settings = []
    for done, (batch, prompt_tokens) in enumerate(pairs):

        def finished(rounds: int, done: int = done) -> None:
            context.emit.progress(done * plan.repeats + rounds, len(pairs) * plan.repeats, "rounds")

        settings.append(_measured(context, decoders, generators, batch, prompt_tokens, finished))
    context.write_json(
        "benchmark.json",
        {
            "settings": settings,
            "models": {name: _sizes(context, model, directories[name]) for name, model in models.items()},
            "rivals": [rival.name for rival in plan.rivals],
            "new_tokens": plan.new_tokens,
            "repeats": plan.repeats,
            "backend": plan.backend,
            "threads": torch.get_num_threads(),
            "device": context.device,
            "dtype": _dtype(models["dense"]),
            "not_measured": missing,
        },
    )


def _rivals(context: StageContext, missing: dict[str, str]) -> dict[str, LayeredModel]:
    """Return the rival checkpoints in memory; those that do not fit are noted in `missing` with the reason."""
    found: dict[str, LayeredModel] = {}
    for rival in context.recipe.benchmark.rivals:
        choice = choose("auto", Path(rival.path), context.device)
        if choice.kind == "streamed":
            missing[rival.name] = f"it does not fit beside the others: {choice.reason}"
            continue
        found[rival.name] = load_written(Path(rival.path), context.device)
    return found


def _generators(
    context: StageContext, decoders: Mapping[str, Decoder], directories: Mapping[str, Path]
) -> dict[str, Generate]:
    plan = context.recipe.benchmark
    if plan.backend == "transformers":
        return {name: partial(generate, decoder) for name, decoder in decoders.items()}
    positions = max(plan.prompt_tokens) + plan.new_tokens
    return {
        name: VllmGenerator(directories[name], _dtype(decoder), models=len(decoders), positions=positions).generate
        for name, decoder in decoders.items()
    }


def _measured(
    context: StageContext,
    decoders: Mapping[str, Decoder],
    generators: Mapping[str, Generate],
    batch: int,
    prompt_tokens: int,
    finished: Callable[[int], None],
) -> dict[str, Any]:
    """Return what all models did with `batch` prompts of one length; `finished` is told the rounds done."""
    plan, seed = context.recipe.benchmark, context.seed("benchmark")
    # Never more than the request asks for: prompt and new tokens just fit into the positions.
    warm_up = min(WARM_UP_TOKENS, plan.new_tokens)
    prompts = {name: random_prompt(decoder, batch, prompt_tokens, seed) for name, decoder in decoders.items()}
    timings = {name: Timings() for name in decoders}
    for name, work in generators.items():
        work(prompts[name], warm_up)
    for number in range(plan.repeats):
        # The order alternates, so that no model always finds another one's leavings in the caches.
        for name in generators if number % 2 == 0 else reversed(list(generators)):
            timings[name].add(*generators[name](prompts[name], plan.new_tokens))
        finished(number + 1)
    found = summarise(timings, batch, prompt_tokens, plan.new_tokens)
    if plan.backend == "transformers":
        for name, decoder in decoders.items():
            # By itself, since watching memory makes a round slower.
            found["models"][name]["peak_memory_bytes"] = peak_memory(decoder, prompts[name], warm_up)
    return found


@torch.inference_mode()
def generate(decoder: Decoder, prompt: Tensor, new_tokens: int) -> tuple[float, list[float]]:
    """Generate greedily after `prompt` [batch, sequence]; return the seconds to the first token, and per later one.

    The first is the prefill: the prompt's forward pass with a cache, its last logits and the choice of the token.
    Decoding is the rest, one token at a time, each waited for: a server hands every one of them out.
    """
    model = decoder.model
    started = _now(decoder.device)
    output = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
    token = output.logits[:, -1:].argmax(-1)
    times = [_now(decoder.device)]
    for _ in range(new_tokens - 1):
        output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True, logits_to_keep=1)
        token = output.logits[:, -1:].argmax(-1)
        times.append(_now(decoder.device))
    return times[0] - started, [after - before for before, after in itertools.pairwise(times)]


def summarise(timings: Mapping[str, Timings], batch: int, prompt_tokens: int, new_tokens: int) -> dict[str, Any]:
    """Return each model's rates, latencies and spreads at one setting, and the speed-ups over the dense model.

    Tokens per second count the whole batch's tokens; a latency is that of one step, which gives each sequence a token.
    """
    found: dict[str, Any] = {
        "batch_size": batch,
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "models": {name: _of_model(t, batch, prompt_tokens) for name, t in timings.items()},
    }
    if set(timings) >= set(VARIANTS):
        dense, pruned = timings["dense"], timings["pruned"]
        found["prefill_speedup"] = _speedup(dense.prefill, pruned.prefill)
        if pruned.tokens:
            found["speedup"] = _speedup(dense.decode, pruned.decode)
    return found


def _of_model(timings: Timings, batch: int, prompt_tokens: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "prefill_tokens_per_second": spread([batch * prompt_tokens / seconds for seconds in timings.prefill]),
        "time_to_first_token_s": spread(timings.prefill),
    }
    if timings.tokens:
        decoded = batch * len(timings.tokens) // len(timings.decode)
        found["decode_tokens_per_second"] = spread([decoded / seconds for seconds in timings.decode])
        found["token_latency_s"] = percentiles(timings.tokens)
    return found


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p90 and p99 of the values, linearly interpolated between neighbours."""
    cuts = statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    return {f"p{share}": cuts[share - 1] for share in PERCENTILES}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, minimum, quartiles and maximum."""
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {
        "median": statistics.median(values),
        "min": min(values),
        "lower_quartile": quartiles[0],
        "upper_quartile": quartiles[2],
        "max": max(values),
    }


def _speedup(dense: Sequence[float], pruned: Sequence[float]) -> dict[str, float]:
    """Return the spread of the rounds' ratios, and from two rounds on the interval of their median."""
    ratios = [a / b for a, b in zip(dense, pruned, strict=True)]
    interval = median(ratios)
    return spread(ratios) | ({} if interval is None else {"low": interval.low, "high": interval.high})


@torch.inference_mode()
def flops_per_token(decoder: LayeredModel, prompt: Tensor) -> float:
    """Return floating point operations per token of a forward pass over `prompt` [1, sequence], head included.

    Counted by torch's dispatcher (matrix products and attention; a multiplication with its addition counts as two).
    """
    # The plain implementation of attention, because the counter does not know the fused ones of every device.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        decoder.logits(prompt)
    return float(counter.get_total_flops() / prompt.shape[1])


def checkpoint_bytes(directory: Path) -> int:
    """Return the bytes of a checkpoint's weight files."""
    return read_checkpoint(directory).nbytes


def _sizes(context: StageContext, model: LayeredModel, directory: Path) -> dict[str, Any]:
    prompt = random_prompt(model, 1, context.recipe.benchmark.prompt_tokens[0], context.seed("benchmark"))
    return {
        "parameters": _parameters(model, directory),
        "checkpoint_bytes": checkpoint_bytes(directory),
        "flops_per_token": flops_per_token(model, prompt),
    }


def _parameters(model: LayeredModel, directory: Path) -> int:
    if isinstance(model, Decoder):
        return sum(parameter.numel() for parameter in model.model.parameters())
    return stored_parameters(read_checkpoint(directory))


def random_prompt(model: LayeredModel, batch: int, length: int, seed: int) -> Tensor:
    """Return token ids [batch, length] out of the model's vocabulary, on its device."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, int(model.config["vocab_size"]), (batch, length), generator=generator)
    return ids.to(model.device)


def peak_memory(decoder: Decoder, prompt: Tensor, new_tokens: int) -> int:
    """Return the bytes of the model plus the most that it allocates to generate `new_tokens` after `prompt`.

    All models are in memory, so what counts is the model's own weights and the growth over what was there before.
    """
    weights = sum(p.numel() * p.element_size() for p in decoder.model.parameters())
    return weights + peak_growth(decoder.device, lambda: generate(decoder, prompt, new_tokens))


def _dtype(model: LayeredModel) -> str:
    return str(model.dtype).removeprefix("torch.")


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
