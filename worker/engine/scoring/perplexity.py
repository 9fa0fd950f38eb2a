"""`perplexity`: of the model without the window, the lowest goes (Shortened LLaMA, arXiv 2402.02834, section 3).

One pass through the rest of the model for each window, so only windows of the wanted size are scored. It follows the
text that it is measured on more than the others do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from worker.engine.decoder import Decoder
from worker.engine.errors import EngineError
from worker.engine.evaluation.perplexity import negative_log_likelihood
from worker.engine.hidden_states import LayeredModel
from worker.engine.scoring.metric import Candidates, Metric


class PerplexityScorer:
    """Mean negative log-likelihood per predicted token, in nats, after each window was dropped; see `Scorer`."""

    def __init__(self, model: LayeredModel, candidates: Candidates | None) -> None:
        assert candidates is not None, "perplexity is scored for the windows of one size"
        self._decoder, self._candidates = whole(model, "perplexity"), candidates

    def add(self, windows: Tensor, batch_size: int, done: Callable[[int], None]) -> tuple[Tensor, Tensor]:
        """Run the model once per window; see `Scorer.add`."""
        rows = self._decoder.layer_count + 1
        scores = torch.full((len(windows), rows, rows), torch.nan, dtype=torch.float64)
        for first in range(0, len(windows), batch_size):
            batch = windows[first : first + batch_size]
            for start in self._candidates.starts:
                end = start + self._candidates.size
                with self._decoder.with_layers(start, end):
                    scores[first : first + len(batch), start, end] = losses(self._decoder, batch)
            done(first + len(batch))
        return scores, torch.full((len(windows),), windows.shape[1] - 1, dtype=torch.float64)


def whole(model: LayeredModel, metric: str) -> Decoder:
    """Return the model for a metric that runs it with its windows swapped.

    Raises:
        EngineError: `needs_resident` where its layers are streamed.
    """
    if not isinstance(model, Decoder):
        raise EngineError(
            "needs_resident",
            f"scoring.metric {metric} runs the model once per window, which needs it whole in memory, and this run "
            "streams its layers; use cosine",
        )
    return model


@torch.inference_mode()
def losses(decoder: Decoder, input_ids: Tensor) -> Tensor:
    """Return each sequence's mean negative log-likelihood in nats per predicted token, [batch] float64.

    Args:
        decoder: the model as it stands, with or without its window.
        input_ids: [batch, sequence], without padding.
    """
    ids = input_ids.to(decoder.device, torch.long)
    hidden: Tensor = decoder.body(input_ids=ids, use_cache=False).last_hidden_state
    with decoder.head() as head:
        found = [negative_log_likelihood(head, hidden[row, None], ids[row, None]) for row in range(len(ids))]
    return torch.cat([nats / tokens.clamp(min=1) for nats, tokens in found])


METRIC = Metric("perplexity", "Shortened LLaMA, arXiv 2402.02834", "lower", PerplexityScorer, shown=torch.exp)
