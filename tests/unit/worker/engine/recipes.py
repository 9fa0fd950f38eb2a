"""A small recipe over a tiny model, for tests of the stages."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from worker.engine.recipe import Recipe


def write_text(path: Path, rows: int = 12, seed: int = 0) -> Path:
    """Rows of 40 random words of the tiny models' vocabulary."""
    words = random.Random(seed)
    texts = [" ".join(f"w{words.randrange(2, 64)}" for _ in range(40)) for _ in range(rows)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def recipe_json(model: Path, text: Path | None, **changes: Any) -> dict[str, Any]:
    """Plain JSON of a recipe: two layers fewer, by default with one layer put in."""
    source = {"path": str(text) if text else None, "column": "text", "name": "words" if text else "builtin:self"}
    return {
        "model": {"path": str(model), "name": "tiny", "revision": "main"},
        "target": {"layers": 2},
        "scoring": {"metric": "cosine", "sequences": 4, "sequence_length": 16, "adaptive": False},
        "replacement": {"kind": "layer", "layers": 1, "init": "best", "loss": "mse", "divergence": "forward",
                        "second_epochs": 1, "second_learning_rate": 3e-4, "epochs": 2, "learning_rate": 1e-3,
                        "tokens": 256, "batch_size": 2},
        "calibration": source,
        "evaluation": [],
        "benchmark": {"batch_sizes": [1], "prompt_tokens": [8], "new_tokens": 4, "repeats": 1},
        "output": {"dtype": None, "format": "auto"},
        "seed": 0, "device": "cpu", "trust_remote_code": False,
        **changes,
    }  # fmt: skip


def make_recipe(model: Path, text: Path | None, **changes: Any) -> Recipe:
    return Recipe.from_json(recipe_json(model, text, **changes))
