"""The benchmark stage: how fast the dense and the pruned model generate, measured side by side.

The two take turns within every round, so that a machine that slows down meanwhile slows both. Reported are medians with
minimum and quartiles, and the speed-up as the median of the rounds' own ratios.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from app.core.safetensors_file import read_checkpoint
from worker.engine.context import StageContext
from worker.engine.decoder import Decoder
from worker.engine.execution import shared_model, shared_written
from worker.engine.hidden_states import LayeredModel
from worker.engine.weights import stored_parameters

WARM_UP_TOKENS = 4
VARIANTS = ("dense", "pruned")


@dataclass
class Timings:
    """Seconds of each round for one model at one batch size."""

    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)


def run(context: StageContext) -> None:
    """Write `benchmark.json`: speed per batch size, FLOPs, memory and sizes, dense and pruned.

    A streamed model would be timed reading its weights for every token, which says nothing about it: it is left out,
    and `not_measured` says so.
    """
    plan = context.recipe.benchmark
    # The pruned one first, which has to fit before the dense one is asked whether it fits beside it.
    models = {"pruned": shared_written(context), "dense": shared_model(context, beside=True)}
    decoders = {name: model for name in VARIANTS if isinstance(model := models[name], Decoder)}
    total, done = len(plan.batch_sizes) * plan.repeats, 0
    results: dict[str, Any] = {}
    # Never more than the request asks for: prompt and new tokens just fit into the positions.
    warm_up = min(WARM_UP_TOKENS, plan.new_tokens)
    for batch in plan.batch_sizes if decoders else ():
        ids = _prompt(models["dense"], batch, plan.prompt_tokens, context.seed("benchmark"))
        timings = {variant: Timings() for variant in decoders}
        for decoder in decoders.values():
            measure_round(decoder, ids, warm_up, Timings())
        for round_number in range(plan.repeats):
            # The order alternates, so that neither model always finds the other's leavings in the caches.
            for variant in decoders if round_number % 2 == 0 else reversed(decoders):
                measure_round(decoders[variant], ids, plan.new_tokens, timings[variant])
            done += 1
            context.emit.progress(done, total, "rounds")
        results[str(batch)] = {
            **summarise(timings, batch, plan.prompt_tokens, plan.new_tokens),
            # By itself, since watching memory makes a round slower.
            "peak_memory_bytes": {name: peak_memory(decoder, ids, warm_up) for name, decoder in decoders.items()},
        }
    directories = {"dense": context.model, "pruned": context.workspace / "checkpoint"}
    prompt = _prompt(models["dense"], 1, plan.prompt_tokens, context.seed("benchmark"))
    context.write_json(
        "benchmark.json",
        {
            "batch_sizes": results,
            "prompt_tokens": plan.prompt_tokens,
            "new_tokens": plan.new_tokens,
            "repeats": plan.repeats,
            "flops_per_token": {name: flops_per_token(models[name], prompt) for name in VARIANTS},
            "parameters": {name: _parameters(models[name], path) for name, path in directories.items()},
            "checkpoint_bytes": {name: checkpoint_bytes(path) for name, path in directories.items()},
            "threads": torch.get_num_threads(),
            "device": context.device,
            "dtype": str(models["dense"].dtype).removeprefix("torch."),
            "not_measured": {
                name: f"the layers of the {name} model were streamed, so that it generates at the speed of the disk"
                for name in VARIANTS
                if name not in decoders
            },
        },
    )


@torch.inference_mode()
def measure_round(decoder: Decoder, prompt: Tensor, new_tokens: int, timings: Timings) -> None:
    """Generate `new_tokens` greedy tokens after `prompt` [batch, sequence] once, and note the seconds.

    Prefill is the time to the first token: the prompt's forward pass with a cache, its last logits and the choice of
    the token. Decoding is the rest, one token at a time.
    """
    model = decoder.model
    started = _now(decoder.device)
    output = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
    token = output.logits[:, -1:].argmax(-1)
    first = _now(decoder.device)
    for _ in range(new_tokens - 1):
        output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True, logits_to_keep=1)
        token = output.logits[:, -1:].argmax(-1)
    finished = _now(decoder.device)
    timings.prefill.append(first - started)
    timings.decode.append(finished - first)


def summarise(timings: Mapping[str, Timings], batch: int, prompt_tokens: int, new_tokens: int) -> dict[str, Any]:
    """Return rates and spreads of both models at one batch size; tokens per second count the whole batch's tokens."""
    decoded, read = batch * (new_tokens - 1), batch * prompt_tokens
    found: dict[str, Any] = {
        "decode_tokens_per_second": {
            name: spread([decoded / s for s in t.decode]) for name, t in timings.items() if decoded
        },
        "prefill_tokens_per_second": {name: spread([read / s for s in t.prefill]) for name, t in timings.items()},
        "time_to_first_token_s": {name: spread(t.prefill) for name, t in timings.items()},
    }
    if set(timings) < set(VARIANTS):
        return found
    found["prefill_speedup"] = _speedup(timings["dense"].prefill, timings["pruned"].prefill)
    if decoded:
        found["speedup"] = _speedup(timings["dense"].decode, timings["pruned"].decode)
    return found


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
    return spread([a / b for a, b in zip(dense, pruned, strict=True)])


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


def _parameters(model: LayeredModel, directory: Path) -> int:
    if isinstance(model, Decoder):
        return sum(parameter.numel() for parameter in model.model.parameters())
    return stored_parameters(read_checkpoint(directory))


def _prompt(decoder: LayeredModel, batch: int, length: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, int(decoder.config["vocab_size"]), (batch, length), generator=generator)
    return ids.to(decoder.device)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_memory(decoder: Decoder, prompt: Tensor, new_tokens: int) -> int:
    """Return the bytes of the model plus the most that it allocates to generate `new_tokens` after `prompt`.

    Both models are in memory, so what counts is the model's own weights and the growth over what was there before. On
    CUDA that is the allocator's own count; on Linux the resident set's, after giving free memory back to the system.
    """
    weights = sum(p.numel() * p.element_size() for p in decoder.model.parameters())
    if decoder.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(decoder.device)
        before = int(torch.cuda.memory_allocated(decoder.device))
        measure_round(decoder, prompt, new_tokens, Timings())
        return weights + int(torch.cuda.max_memory_allocated(decoder.device)) - before
    _return_free_memory()
    _reset_peak_resident()
    before = int(psutil.Process().memory_info().rss)
    measure_round(decoder, prompt, new_tokens, Timings())
    return weights + max(0, _peak_resident() - before)


def _return_free_memory() -> None:
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


def _reset_peak_resident() -> None:
    # Linux, proc(5): writing 5 sets the peak resident set size to the current one.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_resident() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)
