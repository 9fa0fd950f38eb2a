"""`euclidean`: mean over tokens of |h_i - h_{i+n}|, the lowest goes (compared in LLM-Streamline, arXiv 2403.19135).

Biased towards early windows: the norm of the residual stream grows with depth, and the distances with it.
"""

from __future__ import annotations

from torch import Tensor

from worker.engine.scoring.gram import scorer_of
from worker.engine.scoring.metric import Metric


def distances(gram: Tensor) -> Tensor:
    """Return the distances of Gram matrices [..., L+1, L+1]."""
    squares = gram.diagonal(dim1=-2, dim2=-1)
    # Rounding can leave a tiny negative number where two states are equal.
    return (squares[..., :, None] + squares[..., None, :] - 2 * gram).clamp_min(0).sqrt()


METRIC = Metric("euclidean", "compared in LLM-Streamline, arXiv 2403.19135", "lower", scorer_of(distances))
