"""`dot`: mean over tokens of <h_i, h_{i+n}>, the highest goes (compared in LLM-Streamline, arXiv 2403.19135).

Biased towards late windows: the norm of the residual stream grows with depth, and the products with it.
"""

from __future__ import annotations

from torch import Tensor

from worker.engine.scoring.gram import scorer_of
from worker.engine.scoring.metric import Metric


def products(gram: Tensor) -> Tensor:
    """Return the inner products, which the Gram matrices [..., L+1, L+1] are made of."""
    return gram


METRIC = Metric("dot", "compared in LLM-Streamline, arXiv 2403.19135", "higher", scorer_of(products))
