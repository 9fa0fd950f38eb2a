"""What the linear kinds promise: the least squares of their papers, computed while the data stream by."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from tests.unit.worker.engine.tiny_models import LAYERS, make_config
from worker.engine.decoder import Decoder
from worker.engine.errors import EngineError
from worker.engine.replacements import build, linear_merged, linear_residual, stands_for
from worker.engine.replacements.least_squares import held_out_rows
from worker.engine.replacements.linear_merged import added_share, folded
from worker.engine.replacements.starts import Start

IDS = torch.randint(2, 64, (24, 12), generator=torch.Generator().manual_seed(4))


def states(decoder: Decoder, layer: int) -> Tensor:
    return decoder.hidden_states(IDS, upto=layer)[layer].double()


def mean_square_on_held_out(wrong: Tensor) -> float:
    return wrong[torch.tensor(held_out_rows(len(IDS)))].square().mean().item()


@pytest.mark.parametrize(("start", "end"), [(0, 2), (1, 4), (2, LAYERS)])
def test_the_residual_map_is_the_least_squares_of_the_paper(decoder: Decoder, start: int, end: int) -> None:
    tensors, solution = linear_residual.fit(decoder, IDS, start, end, batch_size=5)
    block = linear_residual.block_of(tensors, decoder.device, decoder.dtype)
    fitted = ~torch.tensor(held_out_rows(len(IDS)))
    X, Y = (states(decoder, layer)[fitted].flatten(0, 1) for layer in (start, end))
    assert solution.ridge is not None
    ridge = solution.ridge * (X.T @ X).diagonal().mean()
    W = torch.eye(16) + torch.linalg.solve(X.T @ X + ridge * torch.eye(16), X.T @ (Y - X))
    torch.testing.assert_close(torch.eye(16) + block.get_parameter("proj.weight").T, W.float(), rtol=1e-3, atol=1e-4)
    made = block(states(decoder, start).float())
    assert mean_square_on_held_out(made - states(decoder, end)) == pytest.approx(solution.held_out, rel=1e-3)
    assert solution.held_out < solution.uncorrected


@pytest.mark.parametrize(("start", "end"), [(1, 3), (2, 4), (3, LAYERS)])
def test_the_merged_map_makes_the_layer_in_front_come_out_where_the_window_does(
    decoder: Decoder, start: int, end: int
) -> None:
    tensors, solution = linear_merged.fit(decoder, IDS, start, end, batch_size=5)
    assert solution.held_out < solution.uncorrected
    wanted = states(decoder, end)
    assert mean_square_on_held_out(states(decoder, start) - wanted) == pytest.approx(solution.uncorrected, rel=1e-4)
    layer = build("linear_merged", Start(decoder, start, end, "closed_form", 0, lambda _: 0.0))
    assert layer is not None
    layer.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
    before = {name: tensor.clone() for name, tensor in decoder.model.state_dict().items()}
    with decoder.with_layers(*stands_for("linear_merged", start, end), layer):
        made = decoder.hidden_states(IDS, upto=start)[start]
    assert mean_square_on_held_out(made - wanted) == pytest.approx(solution.held_out, rel=1e-3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in decoder.model.state_dict().items())


@pytest.mark.parametrize("parallel", [True, False])
def test_both_layouts_of_gpt_neox_take_a_merged_map(parallel: bool) -> None:
    torch.manual_seed(0)
    config = make_config("gpt_neox", use_parallel_residual=parallel)
    model: nn.Module = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    decoder = Decoder(model, config.to_dict(), None, torch.float32)
    _, solution = linear_merged.fit(decoder, IDS, 2, 4, batch_size=8)
    assert solution.held_out < solution.uncorrected


@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_projection_is_the_projection_followed_by_the_map(bias: bool) -> None:
    T, x = torch.randn(5, 5, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    linear = nn.Linear(7, 5, bias=bias).double()
    other = nn.Linear(7, 5, bias=bias).double()
    other.load_state_dict({name.removeprefix("down."): t for name, t in folded("down", linear, T).items()})
    torch.testing.assert_close(other(x), linear(x) @ T)


def test_a_transposed_projection_folds_as_well() -> None:
    T, x = torch.randn(5, 5, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    conv = Conv1D(5, 7).double()
    other = Conv1D(5, 7).double()
    other.load_state_dict({name.removeprefix("down."): t for name, t in folded("down", conv, T).items()})
    torch.testing.assert_close(other(x), conv(x) @ T)


class Ending(nn.Module):
    """A stream to which a projection is added in one way or another."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.down, self.norm = how, nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, h: Tensor) -> Tensor:
        update = self.down(h)
        ways: dict[str, Any] = {
            "added": lambda: h + update, "scaled": lambda: h + 0.22 * update,
            "norm of the update": lambda: h + self.norm(update), "norm of the sum": lambda: self.norm(h + update),
        }  # fmt: skip
        ended: Tensor = ways[self.how]()
        return ended


@pytest.mark.parametrize(
    ("how", "share"), [("added", 1.0), ("scaled", 0.22), ("norm of the update", None), ("norm of the sum", None)]
)
def test_how_an_update_reaches_the_stream_is_tried_out(how: str, share: float | None) -> None:
    torch.manual_seed(3)
    ending, h = Ending(how), 100 * torch.randn(2, 5, 8)
    found = added_share(lambda: ending(h), ending.down)
    assert found == (share if share is None else pytest.approx(share, rel=1e-3))


def test_a_norm_behind_the_mlp_is_refused_whatever_the_config_says(llama: Decoder) -> None:
    layer = llama.layers[1]
    mlp: Any = layer.get_submodule("mlp")
    handle = mlp.register_forward_hook(lambda _, __, output: nn.functional.layer_norm(output, output.shape[-1:]))
    with pytest.raises(EngineError, match="linear_residual") as caught:
        linear_merged.fit(llama, IDS, 2, 4, batch_size=8)
    handle.remove()
    assert caught.value.code == "replacement_refused"


@pytest.mark.parametrize("kind", ["linear_residual", "linear_merged"])
def test_one_sequence_is_enough_and_the_batch_size_does_not_matter(llama: Decoder, kind: str) -> None:
    fit: Any = {"linear_residual": linear_residual.fit, "linear_merged": linear_merged.fit}[kind]
    assert fit(llama, IDS[:1], 1, 3, 4)[1].held_out >= 0
    one, other = (fit(llama, IDS, 1, 3, size)[1] for size in (3, 24))
    torch.testing.assert_close(one.correction, other.correction, rtol=1e-4, atol=1e-5)


def test_a_family_whose_mlp_a_norm_follows_or_that_has_experts_is_refused_with_the_reason() -> None:
    from app.core.architectures import FAMILIES, fold_refusal

    reasons = {name: fold_refusal(make_config(name).to_dict()) for name in FAMILIES}
    norms = {name for name, reason in reasons.items() if "a norm follows" in str(reason)}
    experts = {name for name, reason in reasons.items() if "mixture" in str(reason)}
    assert {"gemma2", "gemma3_text", "olmo2", "exaone4"} <= norms
    assert "mixtral" in experts
    assert all(reasons[name] is None for name in FAMILIES if name not in norms | experts)
