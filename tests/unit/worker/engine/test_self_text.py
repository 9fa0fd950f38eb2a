"""What text sampled from the model itself promises."""

from __future__ import annotations

import pytest
import torch

from worker.engine.decoder import Decoder
from worker.engine.errors import EngineError
from worker.engine.self_text import sample_documents


def test_one_seed_gives_one_text(decoder: Decoder) -> None:
    first = list(sample_documents(decoder, 200, 3, length=20))
    assert first == list(sample_documents(decoder, 200, 3, length=20))
    assert first != list(sample_documents(decoder, 200, 4, length=20))
    assert all(text.strip() for text in first)


def test_about_as_many_tokens_come_out_as_were_asked_for(llama: Decoder) -> None:
    told: list[tuple[int, int]] = []
    documents = list(sample_documents(llama, 1000, 0, length=20, progress=lambda *at: told.append(at)))
    assert told[-1][1] == 1000
    words = sum(len(text.split()) for text in documents)
    # Documents end where the model says so, and special tokens are no text.
    assert 700 < words <= 1000


def test_tokens_follow_the_models_own_distribution(llama: Decoder) -> None:
    """Over many draws, the first token has the probabilities that the model gives after bos."""
    with torch.no_grad():
        expected = llama.model(input_ids=torch.tensor([[0]])).logits[0, -1].softmax(-1)
    drawn = torch.zeros(64)
    for text in sample_documents(llama, 2 * 4000, 0, length=2):
        drawn[int(text.removeprefix("w"))] += 1
    drawn[0] = expected[0] = expected[1] = drawn[1] = 0  # special tokens are no text
    distance = (drawn / drawn.sum() - expected / expected.sum()).abs().sum() / 2
    assert distance < 0.06


def test_cached_decoding_gives_what_the_whole_sequence_gives(decoder: Decoder) -> None:
    """The reserved cache grows in place; a wrong view would show as another text than plain recomputation draws."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.zeros((3, 1), dtype=torch.long)
    for _ in range(9):
        cumulative = decoder.logits(ids)[:, -1].float().softmax(-1).cumsum(-1)
        uniform = torch.rand((3, 1), generator=generator) * cumulative[:, -1:]
        ids = torch.cat((ids, torch.searchsorted(cumulative, uniform).clamp(max=63)), dim=1)
    expected: list[str] = []
    for row in ids.tolist():
        text: list[str] = []
        for token in [*row, 0]:
            if token > 1:
                text.append(f"w{token}")
            elif text:
                expected.append("".join(text))
                text = []
    # Tokenizers differ in the spaces that they put between words.
    assert [text.replace(" ", "") for text in sample_documents(decoder, 30, 7, length=10)] == expected


def test_a_tokenizer_without_a_start_token_is_refused(llama: Decoder) -> None:
    llama.tokenizer.bos_token = None
    llama.tokenizer.eos_token = None
    with pytest.raises(EngineError, match="bos or eos"):
        next(sample_documents(llama, 100, 0))
