"""Perplexity is what a plain computation over all logits gives, however it is batched and cut into chunks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.unit.worker.engine.tiny_models import CONFIGS, save_model
from worker.engine.decoder import Decoder, load_decoder
from worker.engine.evaluation import perplexity
from worker.engine.evaluation.perplexity import LogLikelihood, likelihoods, negative_log_likelihood, text_bytes
from worker.engine.hidden_states import without
from worker.engine.text import context_tokens, token_windows


def plain(decoder: Decoder, windows: Tensor) -> float:
    logits = decoder.logits(windows)[:, :-1].double()
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), windows[:, 1:].long(), reduction="sum")
    return float(losses)


def last_hidden(decoder: Decoder, ids: Tensor, *cut: tuple[int, int]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    decoder.last_states(ids, len(ids), lambda variant, _, hidden: found.update({variant: hidden}), cut=cut or None)
    return found


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    return load_decoder(save_model(tmp_path_factory.mktemp("model"), "llama"), "cpu")


@pytest.fixture
def windows() -> Tensor:
    return torch.randint(2, 60, (7, 12), generator=torch.Generator().manual_seed(0), dtype=torch.int32)


def test_the_head_gives_the_models_own_logits_in_every_family(any_decoder: Decoder, windows: Tensor) -> None:
    hidden = last_hidden(any_decoder, windows.long())["dense"]
    with any_decoder.head() as head:
        torch.testing.assert_close(head(hidden), any_decoder.logits(windows.long()))


@pytest.mark.parametrize("logit_bytes", [1, 64 * 4 * 5, 1 << 20])
def test_chunks_of_any_size_sum_to_the_same(
    decoder: Decoder, windows: Tensor, monkeypatch: pytest.MonkeyPatch, logit_bytes: int
) -> None:
    monkeypatch.setattr(perplexity, "_LOGIT_BYTES", logit_bytes)
    total = likelihoods(decoder, 3, windows=windows, progress=lambda _: None)["dense"]
    assert total.tokens == 7 * 11
    assert total.nats == pytest.approx(plain(decoder, windows), rel=1e-5)


def test_padding_counts_neither_as_target_nor_as_context(decoder: Decoder, windows: Tensor) -> None:
    ids = windows.long()
    padded = torch.cat([ids, torch.ones(7, 4, dtype=torch.long)], dim=1)
    mask = torch.cat([torch.ones(7, 12), torch.zeros(7, 4)], dim=1).long()
    with decoder.head() as head:
        plain_sum = negative_log_likelihood(head, last_hidden(decoder, ids)["dense"], ids)
        padded_sum = negative_log_likelihood(head, last_hidden(decoder, padded)["dense"], padded, mask)
        single = negative_log_likelihood(head, last_hidden(decoder, ids[:, :1])["dense"], ids[:, :1])
    torch.testing.assert_close(padded_sum[0], plain_sum[0], rtol=1e-5, atol=0)
    assert padded_sum[1].tolist() == plain_sum[1].tolist() == [11] * 7
    assert [part.tolist() for part in single] == [[0.0] * 7, [0] * 7]


@pytest.mark.parametrize("cut_out", [[(0, 2)], [(1, 3)], [(3, 5)], [(0, 1), (3, 4)], [(1, 2), (3, 5)]], ids=str)
@pytest.mark.parametrize("family", CONFIGS)
def test_the_shared_prefix_gives_the_same_hidden_states_as_a_plain_cut(
    tmp_path: Path, windows: Tensor, family: str, cut_out: list[tuple[int, int]]
) -> None:
    decoder = load_decoder(save_model(tmp_path, family), "cpu")
    ids = windows.long()
    dense = last_hidden(decoder, ids)["dense"]
    with without(decoder, cut_out):
        assert decoder.layer_count == 5 - sum(end - start for start, end in cut_out)
        cut = last_hidden(decoder, ids)["dense"]
    shared = last_hidden(decoder, ids, *cut_out)
    assert torch.equal(shared["dense"], dense)
    assert torch.equal(shared["cut"], cut)
    assert not torch.equal(cut, dense)
    assert torch.equal(last_hidden(decoder, ids)["dense"], dense)


def test_both_normalisations_come_from_one_sum() -> None:
    likelihood = LogLikelihood([math.log(4) * 6, math.log(4) * 4], [6, 4], text_bytes=20)
    assert likelihood.perplexity == pytest.approx(4)
    assert likelihood.byte_perplexity == pytest.approx(2)
    assert LogLikelihood([1e9], [1]).perplexity is None
    assert LogLikelihood([math.nan], [1]).byte_perplexity is None


def test_bytes_are_those_of_the_predicted_text_without_separators(decoder: Decoder) -> None:
    windows = torch.tensor([[0, 5, 9], [7, 0, 33]])
    found = text_bytes(windows, decoder.tokenizer, torch.tensor([1, 1]))
    assert found == len("w5 w9") + len("w7 w33") - len("w7")


@pytest.mark.parametrize("stride", [1, 3, 8, 12])
def test_with_a_stride_each_token_is_predicted_once_from_what_is_before_it(decoder: Decoder, stride: int) -> None:
    """Against the definition: token t of the text is predicted by the first window that holds it, but for t = 0."""
    documents = [" ".join(f"w{(7 * n + k) % 50 + 2}" for k in range(13)) for n in range(3)]
    windows = token_windows(documents, decoder.tokenizer, 12, stride=stride)
    given = context_tokens(windows, stride)
    found = likelihoods(decoder, 4, windows=windows, given=given, progress=lambda _: None)["dense"]
    text = torch.cat([windows[0], *(window[12 - stride :] for window in windows[1:])]).long()
    expected, predicted = 0.0, 0
    for place in range(1, len(text)):
        start = 0 if place < 12 else ((place - 12) // stride + 1) * stride
        if place == start:  # without an overlap nothing is before it
            continue
        logs = decoder.logits(text[None, start:place])[0, -1].double().log_softmax(-1)
        expected, predicted = expected - float(logs[text[place]]), predicted + 1
    assert found.tokens == predicted
    assert found.nats == pytest.approx(expected, rel=1e-5)
    whole = len(decoder.tokenizer.decode(text.tolist(), skip_special_tokens=True).encode())
    if stride < 12:
        assert predicted == len(text) - 1
        assert abs(text_bytes(windows, decoder.tokenizer, given) - whole) <= len(windows) + 3, "but for spaces at seams"
