"""What a replacement is trained for; one file per loss, each a function of what the block made of a batch.

| name | paper |
|---|---|
| mse | LLM-Streamline, arXiv 2403.19135, section 3.2 |
| cosine | the angle that the window was chosen by, arXiv 2403.19135, section 3.1 |
| lm | next-token loss through the pruned model, arXiv 2403.19135, appendix |
| kd | distillation of the dense model's logits, arXiv 1503.02531; reverse: arXiv 2306.08543; skewed: arXiv 2402.03898 |

`mse` and `cosine` need the lightweight block alone. `lm` and `kd` run the layers behind the window too, forward and
backward, but never those in front of it: they start from the stored hidden states.
"""

from __future__ import annotations

from worker.engine.losses.cosine import CosineDistance
from worker.engine.losses.kd import Distillation
from worker.engine.losses.lm import NextToken
from worker.engine.losses.mse import MeanSquaredError
from worker.engine.losses.objective import Batch, Objective, Tail
from worker.engine.recipe import Divergence

__all__ = [
    "Batch", "CosineDistance", "Distillation", "MeanSquaredError", "NextToken", "Objective", "Tail",
    "objective_of",
]  # fmt: skip


def objective_of(loss: str, tail: Tail, divergence: Divergence) -> Objective:
    """Return the loss of that name (one step of `recipe.replacement.loss`)."""
    match loss:
        case "mse":
            return MeanSquaredError()
        case "cosine":
            return CosineDistance()
        case "lm":
            return NextToken(tail)
        case "kd":
            return Distillation(tail, divergence)
    raise ValueError(f"there is no loss {loss!r}")
