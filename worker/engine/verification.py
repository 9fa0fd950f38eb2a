"""The verify stage: proof that the written checkpoint is the pruned model, in a process that has never seen us.

The pruned model in memory (`worker.engine.pruned`) leaves logits and a greedy continuation in a probe
file. A fresh, isolated interpreter then loads the checkpoint with the stock library, repeats both, and generates in
every way that users do. Where anything differs, nothing is published.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from app.core.architectures import max_positions
from worker.engine.context import StageContext, write_bytes
from worker.engine.device import OUT_OF_MEMORY_WORDS
from worker.engine.errors import EngineError
from worker.engine.execution import DENSE, shared_model
from worker.engine.hidden_states import LayeredModel
from worker.engine.pruned import pruned, written_dtype
from worker.engine.streamed import load_streamed

SCRIPT = Path(__file__).with_name("verification_script.py")

# Largest allowed difference of logits, relative to their largest magnitude (at least 1), by the dtype computed in. The
# two processes run the same operations on the same numbers, so that differences come from threads and kernels alone.
TOLERANCE: Mapping[torch.dtype, float] = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}

SEQUENCE_TOKENS = 48
PROBE = "probe.safetensors"
NEW_TOKENS = 12
SHORT_PROMPT_SHARE = 0.6
_TIMEOUT_S = 3600
_ERROR_LINES = 4


def run(context: StageContext) -> None:
    """Write `verification.json`: how far the checkpoint's logits and tokens are from the model in memory.

    Of a streamed model the proof runs on CPU in the dtype of the written checkpoint, whose file the other process then
    maps instead of loading it. Raises EngineError `verification_failed` where the checkpoint does not load cleanly, its
    logits differ by more than the tolerance, or any way of generating gives other tokens.
    """
    decoder, device = shared_model(context), context.device
    if decoder.execution == "streamed":
        written, device = written_dtype(context, decoder), "cpu"
        decoder = load_streamed(
            context.model, device, context.temporary, written, trust_remote_code=context.recipe.trust_remote_code
        )
    # Kept with the results: whoever serves the checkpoint can repeat the comparison.
    probe = context.workspace / PROBE
    write_bytes(probe, save(make_probe(context, decoder)))
    compute = decoder.dtype
    del decoder
    if device == "cuda":
        # The other process needs the room.
        context.memo.pop(DENSE, None)
        torch.cuda.empty_cache()
    checkpoint = context.workspace / "checkpoint"
    findings = check_in_fresh_process(checkpoint, probe, compute, device, context.temporary)
    verdict = judge(findings, compute)
    context.write_json("verification.json", {**findings, **verdict})
    for warning in findings["load_warnings"]:
        context.emit.log(f"loading the checkpoint warns: {warning}")
    context.emit.log(
        f"the written checkpoint's logits differ from memory by at most {findings['logits_max_difference']:.3g} "
        f"(tolerance {verdict['logits_tolerance']:.3g}); {len(findings['generation'])} ways of generating agree"
    )


def make_probe(context: StageContext, decoder: LayeredModel) -> dict[str, Tensor]:
    """Return what the pruned model in memory computes, as the script expects it.

    `input_ids` [1, sequence] int64, `logits` [sequence, vocabulary] float32, `expected` [new tokens] int64 greedy after
    the longer prompt, `prompt_lengths` [2] int64.
    """
    room = max_positions(decoder.config)
    new = max(1, min(NEW_TOKENS, room // 3))
    length = max(2, min(SEQUENCE_TOKENS, room - new))
    generator = torch.Generator().manual_seed(context.seed("verify"))
    ids = torch.randint(0, int(decoder.config["vocab_size"]), (1, length), generator=generator)
    prompt = max(2, length // 3)
    lengths = torch.tensor([prompt, max(1, round(prompt * SHORT_PROMPT_SHARE))])
    with pruned(context, decoder):
        logits = decoder.logits(ids)[0].float().cpu()
        tokens = ids[:, :prompt]
        for _ in range(new):
            tokens = torch.cat([tokens, decoder.logits(tokens)[:, -1:].argmax(-1).cpu()], dim=1)
    return {
        "input_ids": ids,
        "logits": logits.contiguous(),
        "expected": tokens[0, prompt:].contiguous(),
        "prompt_lengths": lengths,
    }


def check_in_fresh_process(
    checkpoint: Path, probe: Path, dtype: torch.dtype, device: str, scratch: Path
) -> dict[str, Any]:
    """Run the stand-alone script on a checkpoint and return its findings.

    Raises EngineError `verification_failed` with the last lines of its complaint where it does not finish.
    """
    out = scratch / "findings.json"
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    command = [
        sys.executable, "-I", str(SCRIPT), "--checkpoint", str(checkpoint), "--probe", str(probe), "--out", str(out),
        "--dtype", str(dtype).removeprefix("torch."), "--device", device,
        # Our own code only, which came with the checkpoint a moment ago.
        *(["--trust-remote-code"] if "streamline" in config else []),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(scratch / "modules"),
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    process = subprocess.Popen(
        command, cwd=scratch, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise EngineError("verification_failed", f"the check did not finish within {_TIMEOUT_S} s") from error
    finally:
        # Also on SIGTERM, which unwinds through here: no process is left behind.
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode == -signal.SIGKILL:
        raise EngineError(
            "out_of_memory", "the check of the checkpoint was killed; give the worker more memory", permanent=False
        )
    if process.returncode != 0 and any(said in output for said in OUT_OF_MEMORY_WORDS):
        raise EngineError(
            "out_of_memory", "memory ran out in the check of the checkpoint; free some of it", permanent=False
        )
    if process.returncode != 0:
        tail = " / ".join(line.strip() for line in output.strip().splitlines()[-_ERROR_LINES:])
        raise EngineError("verification_failed", f"a fresh process could not load and run the checkpoint: {tail}")
    findings: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    with contextlib.suppress(FileNotFoundError):
        out.unlink()
    return findings


def judge(findings: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Return the tolerance that findings in `dtype` were held to.

    Raises EngineError `verification_failed` naming everything that is wrong.
    """
    tolerance = TOLERANCE[dtype] * max(1.0, findings["logits_max_magnitude"])
    wrong = []
    if findings["project_importable"]:
        wrong.append("this project was importable in the checking process, so the check proves nothing")
    wrong += [f"{kind}: {', '.join(names[:5])}" for kind, names in findings["loading"].items()]
    difference = findings["logits_max_difference"]
    if not difference <= tolerance:  # also refuses nan
        wrong.append(f"its logits differ from the model in memory by {difference:.3g}, more than {tolerance:.3g}")
    for way, found in findings["generation"].items():
        if not found["same"] and not found["largest_margin"] <= tolerance:
            wrong.append(f"greedy tokens differ with {way} by a margin of {found['largest_margin']:.3g}")
    if wrong:
        raise EngineError("verification_failed", f"the written checkpoint is not the pruned model: {'; '.join(wrong)}")
    return {"logits_tolerance": tolerance, "compute_dtype": str(dtype).removeprefix("torch."), "passed": True}
