"""Which losses of training need no more of a model than the hidden states around its window."""

from typing import Final

from app.core.architectures import FITTED_KINDS

OF_STATES: Final = frozenset({"mse", "cosine"})
"""LLM-Streamline, arXiv 2403.19135, section 3.2; `lm` and `kd` run the layers behind the window too."""


def runs_the_model(kind: str, loss: str) -> bool:
    """Tell whether a replacement of this kind is trained through the model, by any step of a loss such as `mse+kd`."""
    trained = kind != "none" and kind not in FITTED_KINDS
    return trained and not OF_STATES.issuperset(loss.split("+"))
