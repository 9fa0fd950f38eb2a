"""Loading a written checkpoint back into the engine, whatever form it has."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoTokenizer

from worker.engine.decoder import Decoder, load_decoder
from worker.engine.device import compute_dtype, stored_dtype
from worker.engine.export import modeling_streamline


def load_written(path: Path, device: str, dtype: torch.dtype | None = None) -> Decoder:
    """Load the checkpoint in `path` onto `device`; `dtype` as for `load_decoder`.

    A checkpoint with custom code is run by the very file that was shipped with it, imported from this package: the same
    code without transformers' cache of copied modules, and without executing anything that lies in a workspace.
    """
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    if "streamline" not in config:
        return load_decoder(path, device, dtype)
    stored = stored_dtype(path)
    model_class = getattr(modeling_streamline, config["architectures"][0])
    model = model_class.from_pretrained(path, dtype=dtype or compute_dtype(device, stored), local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    return Decoder(model.to(device), config, tokenizer, stored)
