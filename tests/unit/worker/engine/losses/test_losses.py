"""What every loss promises: zero is the dense model, and training for it lowers it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from tests.unit.worker.engine.tiny_models import LAYERS
from worker.engine.activation_store import ActivationStore
from worker.engine.decoder import Decoder
from worker.engine.losses import Batch, Objective, objective_of
from worker.engine.recipe import Divergence
from worker.engine.replacements import build
from worker.engine.replacements.starts import Start
from worker.engine.training import Pairs, Plan, fit
from worker.engine.training.stage import block_arguments

START, END = 1, 3
DIVERGENCES = get_args(Divergence)
LOSSES = [("mse", "forward"), ("cosine", "forward"), ("lm", "forward"), *(("kd", name) for name in DIVERGENCES)]


def batch_of(decoder: Decoder, ids: Tensor) -> Batch:
    states = decoder.hidden_states(ids, upto=END)
    return Batch(states[START].clone(), states[END].clone(), ids)


def objective(decoder: Decoder, loss: str, divergence: Divergence) -> Objective:
    return objective_of(loss, partial(decoder.logits_from, END), divergence)


@pytest.mark.parametrize("index", [1, 3, LAYERS])
def test_logits_from_a_hidden_state_are_those_of_the_whole_model(decoder: Decoder, ids: Tensor, index: int) -> None:
    states = decoder.hidden_states(ids)
    torch.testing.assert_close(decoder.logits_from(index, states[index].clone()), decoder.logits(ids))


def test_gradients_reach_the_hidden_state_and_no_weight(decoder: Decoder, ids: Tensor) -> None:
    hidden = decoder.hidden_states(ids, upto=END)[END].clone().requires_grad_(True)
    decoder.logits_from(END, hidden).square().mean().backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in decoder.model.parameters())


@pytest.mark.parametrize(("loss", "divergence"), [row for row in LOSSES if row[0] != "lm"])
def test_the_dense_model_has_no_loss(llama: Decoder, ids: Tensor, loss: str, divergence: Divergence) -> None:
    batch = batch_of(llama, ids)
    assert objective(llama, loss, divergence)(batch.after, batch).item() == pytest.approx(0, abs=1e-6)
    assert objective(llama, loss, divergence)(batch.before, batch).item() > 1e-6


def test_lm_is_the_cross_entropy_of_the_whole_model(llama: Decoder, ids: Tensor) -> None:
    batch = batch_of(llama, ids)
    expected = torch.nn.functional.cross_entropy(llama.logits(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert objective(llama, "lm", "forward")(batch.after, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_divergences_are_those_of_the_textbook(llama: Decoder, ids: Tensor) -> None:
    batch = batch_of(llama, ids)
    p = llama.logits_from(END, batch.after).double().softmax(-1)
    q = llama.logits_from(END, batch.before).double().softmax(-1)

    def kl(a: Tensor, b: Tensor) -> float:
        return float((a * (a / b).log()).sum(-1).mean())

    expected = {
        "forward": kl(p, q),
        "reverse": kl(q, p),
        "skewed_forward": kl(p, 0.1 * p + 0.9 * q),
        "skewed_reverse": kl(q, 0.9 * p + 0.1 * q),
    }
    found = {name: objective(llama, "kd", name)(batch.before, batch).item() for name in DIVERGENCES}
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("loss", "divergence"), LOSSES)
def test_training_for_a_loss_lowers_it_on_held_out_sequences(
    llama: Decoder, tmp_path: Path, loss: str, divergence: Divergence
) -> None:
    ids = torch.randint(2, 64, (24, 12), generator=torch.Generator().manual_seed(1))
    pairs = Pairs.split(ActivationStore.capture(llama, ids, START, END, tmp_path, batch_size=8), ids)
    arguments = block_arguments(llama, START, 12, True)
    block = build("layer", Start(llama, START, END, "first", 0, lambda _: 0.0))
    assert block is not None
    target = objective(llama, loss, divergence)
    weights = [parameter.clone() for parameter in llama.model.parameters()]
    history = fit(block, pairs, arguments, Plan(6, 3e-3, 4, 0), target)
    assert history.kept == "trained"
    assert pairs.error(block, arguments, 4, target) == pytest.approx(history.best)
    assert history.best < history.start
    assert all(torch.equal(a, b) for a, b in zip(weights, llama.model.parameters(), strict=True)), "the model is frozen"
