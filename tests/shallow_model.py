"""The bundled model with a quarter of its layers: a job on it does all that a job does, in half of the time."""

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

LAYERS = 6
_BUNDLED = Path(__file__).resolve().parents[1] / "app" / "bundled" / "stories-24l"


def write_shallow_model(directory: Path) -> None:
    """Write it as `save_pretrained` would: the first layers, and everything outside of the layers."""
    directory.mkdir(parents=True)
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(_BUNDLED / name, directory)
    config = json.loads((_BUNDLED / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"num_hidden_layers": LAYERS}))
    tensors = load_file(_BUNDLED / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if _layer(name) is None or _layer(name) in range(LAYERS)}
    save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})


def _layer(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["model", "layers"] else None
