"""`angular`: mean over tokens of arccos(cos(h_i, h_{i+n})) / pi, the lowest goes (arXiv 2403.17887, section 3.2).

The paper takes the last token of each sequence alone; all tokens are as cheap here and vary less.
"""

from __future__ import annotations

import math

from torch import Tensor

from worker.engine.scoring.gram import cosines, scorer_of
from worker.engine.scoring.metric import Metric


def angles(gram: Tensor) -> Tensor:
    """Return the angles of Gram matrices [..., L+1, L+1], 0 for the same direction, 1 for the opposite one."""
    return cosines(gram).clamp(-1, 1).arccos() / math.pi


METRIC = Metric("angular", "Gromov et al., arXiv 2403.17887", "lower", scorer_of(angles))
