"""Metrics that say which window of layers is worth least; one file each, listed with its paper.

| metric | score of the window [i, i + n) | goes | paper |
|---|---|---|---|
| cosine | mean cos(h_i, h_{i+n}) | highest | LLM-Streamline, arXiv 2403.19135 |
| angular | mean arccos(cos) / pi | lowest | arXiv 2403.17887 |
| euclidean | mean distance | lowest | compared in LLM-Streamline |
| dot | mean inner product | highest | compared in LLM-Streamline |
| perplexity | perplexity without the window | lowest | Shortened LLaMA, arXiv 2402.02834 |
| task | perplexity after a linear patch, of the best few by cosine | lowest | ReplaceMe, arXiv 2505.02819 |

The first four come out of one pass through the model for all windows of all sizes (`gram`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from worker.engine.scoring import angular, cosine, dot, euclidean, perplexity, task
from worker.engine.scoring.metric import Metric

METRICS: Mapping[str, Metric] = MappingProxyType(
    {module.METRIC.name: module.METRIC for module in (cosine, angular, euclidean, dot, perplexity, task)}
)
