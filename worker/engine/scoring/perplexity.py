"""`perplexity`: of the model without the window, the lowest goes (Shortened LLaMA, arXiv 2402.02834, section 3).

One pass through the rest of the model for each window, so only windows of the wanted size are scored. It follows the
text that it is measured on more than the others do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worker.engine.decoder import Decoder
from worker.engine.evaluation.perplexity import negative_log_likelihood
from worker.engine.scoring.metric import Candidates, Metric


class PerplexityScorer:
    """Mean negative log-likelihood per predicted token, in nats, after each window was dropped; see `Scorer`."""

    def __init__(self, decoder: Decoder, candidates: Candidates | None) -> None:
        assert candidates is not None, "perplexity is scored for the windows of one size"
        self._decoder, self._candidates = decoder, candidates

    def add(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the model once per window; see `Scorer.add`."""
        decoder, rows = self._decoder, len(self._decoder.layers) + 1
        scores = torch.full((len(input_ids), rows, rows), torch.nan, dtype=torch.float64)
        tokens = torch.zeros(len(input_ids), dtype=torch.float64)
        for start in self._candidates.starts:
            end = start + self._candidates.size
            with decoder.with_layers(start, end):
                scores[:, start, end], tokens = losses(decoder, input_ids, attention_mask)
        return scores, tokens


@torch.inference_mode()
def losses(decoder: Decoder, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return each sequence's mean negative log-likelihood in nats [batch], and its predicted tokens [batch], float64.

    Args:
        decoder: the model as it stands, with or without its window.
        input_ids: [batch, sequence].
        attention_mask: [batch, sequence]; padding (0) is neither predicted nor predicts.
    """
    ids = input_ids.to(decoder.device, torch.long)
    mask = None if attention_mask is None else attention_mask.to(decoder.device)
    hidden: Tensor = decoder.body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    head: nn.Module = decoder.model.get_output_embeddings()  # type: ignore[operator]
    rows = [
        negative_log_likelihood(head, hidden[row, None], ids[row, None], None if mask is None else mask[row, None])
        for row in range(len(ids))
    ]
    nats, tokens = torch.tensor(rows, dtype=torch.float64).unbind(1)
    return nats / tokens.clamp_min(1), tokens


METRIC = Metric("perplexity", "Shortened LLaMA, arXiv 2402.02834", "lower", PerplexityScorer, shown=torch.exp)
