"""Stand-alone check of a written checkpoint, run as `python -I` by the verify stage: torch and transformers only.

It loads the checkpoint as any user would, compares its logits with those recorded from the model in memory, and
generates the same greedy tokens in five ways: cache off, default, static cache, token by token through
`past_key_values`, and in a left-padded batch. A JSON document with what was found goes to --out; judging is the
caller's. This project may not be imported here, and the script makes sure of it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.abc
import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

REFUSED = ("app", "worker")


class RefuseProject(importlib.abc.MetaPathFinder):
    """Makes this project's packages unimportable, also where it is installed in the same environment."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Refuse our packages, leave all others to the finders behind."""
        if fullname.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"{fullname} is not importable in the verification process")


class Heard(logging.Handler):
    """Collects what the libraries warn about."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.messages.append(record.getMessage())


def project_is_importable() -> bool:
    """Whether any of this project's packages can be imported here; it must not be."""
    for name in REFUSED:
        with contextlib.suppress(ImportError):
            __import__(name)
            return True
    return False


def load(checkpoint: Path, dtype: str, device: str, *, trust: bool) -> tuple[Any, dict[str, list[str]]]:
    """Load the model with the stock call; return it and the names of tensors that did not match."""
    import torch
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=getattr(torch, dtype),
        trust_remote_code=trust,
        local_files_only=True,
        output_loading_info=True,
    )
    mismatches = {
        kind: sorted(map(str, info[kind]))
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if info[kind]
    }
    return model.to(device).eval(), mismatches


class Greedy:
    """Greedy continuations of `new` tokens in different ways; end-of-text tokens do not stop them."""

    def __init__(self, model: Any, new: int) -> None:
        from transformers import GenerationConfig

        self.model, self.new = model, new
        # The checkpoint's own defaults (sampling, penalties, stop tokens) would hide or fake differences.
        model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)

    def generate(self, ids: Any, mask: Any = None, **ways: Any) -> list[list[int]]:
        """Continue prompts [batch, sequence] with `generate`; returns the new tokens of each row."""
        import torch

        mask = torch.ones_like(ids) if mask is None else mask
        out = self.model.generate(
            input_ids=ids, attention_mask=mask, min_new_tokens=self.new, max_new_tokens=self.new, **ways
        )
        rows: list[list[int]] = out[:, ids.shape[1] :].tolist()
        return rows

    def token_by_token(self, ids: Any) -> list[int]:
        """Continue one prompt [1, sequence], feeding every token by itself, the prompt's too."""
        import torch

        cache, tokens = None, list[int]()
        for position in range(ids.shape[1] + self.new - 1):
            token = ids[:, position : position + 1] if position < ids.shape[1] else torch.tensor([[tokens[-1]]])
            out = self.model(input_ids=token.to(ids.device), past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            if position >= ids.shape[1] - 1:
                tokens.append(int(out.logits[0, -1].argmax()))
        return tokens

    def margin(self, prompt: Any, tokens: list[int], other: list[int]) -> float | None:
        """How far apart the logits of two continuations are where they first differ; None where they do not.

        Equal up to rounding, two tokens may win in either order; that is no difference in the model.
        """
        import torch

        at = next((i for i, (a, b) in enumerate(zip(tokens, other, strict=True)) if a != b), None)
        if at is None:
            return None
        prefix = torch.cat([prompt, torch.tensor([tokens[:at]], dtype=prompt.dtype, device=prompt.device)], dim=1)
        logits = self.model(input_ids=prefix, use_cache=False).logits[0, -1].float()
        return float((logits[tokens[at]] - logits[other[at]]).abs())


def compare_generation(model: Any, prompts: list[Any], expected: list[int], new: int) -> dict[str, dict[str, Any]]:
    """Generate in every way from the prompts ([1, long] and [1, short]); per way the tokens and the margins.

    `expected` are the first prompt's tokens from the model in memory.
    """
    import torch

    greedy = Greedy(model, new)
    first, second = prompts
    reference = [greedy.generate(prompt, use_cache=False)[0] for prompt in prompts]
    pad = first.shape[1] - second.shape[1]
    padded = torch.cat([torch.zeros_like(first[:, :pad]), second], dim=1)
    mask = torch.ones_like(first)
    mask_padded = mask.clone()
    mask_padded[:, :pad] = 0
    ways = {
        "in_memory": [expected],
        "cache_off": reference,
        "default": [greedy.generate(prompt)[0] for prompt in prompts],
        "token_by_token": [greedy.token_by_token(prompt) for prompt in prompts],
        "left_padding": greedy.generate(torch.cat([first, padded]), torch.cat([mask, mask_padded])),
    }
    # Where positions are told by ALiBi (old Falcons), the library has no static cache, for the dense model neither.
    if not getattr(model.config, "alibi", False):
        ways["static_cache"] = [
            greedy.generate(prompt, cache_implementation="static", disable_compile=True)[0] for prompt in prompts
        ]
    found = {}
    for way, rows in ways.items():
        margins = [
            greedy.margin(prompt, want, row) for prompt, want, row in zip(prompts, reference, rows, strict=False)
        ]
        differing = [margin for margin in margins if margin is not None]
        found[way] = {"tokens": rows, "same": not differing, "largest_margin": max(differing, default=0.0)}
    return found


def check(checkpoint: Path, probe: Path, dtype: str, device: str, *, trust: bool) -> dict[str, Any]:
    """Return the findings about `checkpoint`, compared with the tensors of `probe`.

    The probe holds `input_ids` [1, sequence], `logits` [sequence, vocabulary] float32, `expected` [new tokens], and
    `prompt_lengths` [2].
    """
    heard = Heard()
    logging.getLogger("transformers").addHandler(heard)
    gc.disable()  # nothing of what is imported is garbage; looking for some would take a quarter longer
    import torch
    import transformers.modeling_layers  # noqa: F401  behind every model's code
    from safetensors.torch import load_file
    from transformers import __version__ as transformers_version

    gc.freeze()
    gc.enable()
    tensors = load_file(probe)
    ids = tensors["input_ids"].to(device)
    with warnings.catch_warnings(record=True) as python_warnings, torch.no_grad():
        warnings.simplefilter("always")
        model, mismatches = load(checkpoint, dtype, device, trust=trust)
        load_warnings = [*heard.messages, *(str(warning.message) for warning in python_warnings)]
        logits = model(input_ids=ids).logits[0].float().cpu()
        difference = (logits - tensors["logits"]).abs().max()
        prompts = [ids[:, :length] for length in tensors["prompt_lengths"].tolist()]
        expected = tensors["expected"].tolist()
        generation = compare_generation(model, prompts, expected, len(expected))
    return {
        "logits_max_difference": float(difference),
        "logits_max_magnitude": float(tensors["logits"].abs().max()),
        "loading": mismatches,
        "load_warnings": load_warnings,
        "warnings": [*heard.messages, *(str(warning.message) for warning in python_warnings)],
        "generation": generation,
        "model_class": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {"torch": torch.__version__, "transformers": transformers_version},
        "project_importable": project_is_importable(),
    }


def main() -> None:
    """Parse the command line, check, write the findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--probe", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--trust-remote-code", action="store_true")
    arguments = parser.parse_args()
    sys.meta_path.insert(0, RefuseProject())
    findings = check(
        arguments.checkpoint,
        arguments.probe,
        arguments.dtype,
        arguments.device,
        trust=arguments.trust_remote_code,
    )
    arguments.out.write_text(json.dumps(findings), encoding="utf-8")
    sys.stdout.flush()
    # All is said. What a library's threads do while the interpreter is taken apart must not count as a failure.
    os._exit(0)


if __name__ == "__main__":
    main()
