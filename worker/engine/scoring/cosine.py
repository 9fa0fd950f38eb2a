"""`cosine`: mean over tokens of cos(h_i, h_{i+n}), the highest goes (LLM-Streamline, arXiv 2403.19135, section 3.1)."""

from __future__ import annotations

from worker.engine.scoring.gram import cosines, scorer_of
from worker.engine.scoring.metric import Metric

METRIC = Metric("cosine", "LLM-Streamline, arXiv 2403.19135, section 3.1", "higher", scorer_of(cosines))
