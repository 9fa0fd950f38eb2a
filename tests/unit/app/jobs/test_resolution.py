"""Defaults fill what is left out, and never something that the model cannot bear."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.architectures import BLOCK_KINDS
from app.core.selection import ParameterCounts
from app.errors.references import BadRepoName, BadTarget, ReplacementRefused
from app.errors.requests import ConflictingFields, OutOfRange
from app.jobs.facts import ModelFacts
from app.jobs.resolution import resolve
from app.jobs.spec.request import JobRequest

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 12,
    "vocab_size": 1000,
}
COMMIT = "0" * 40


def facts(repo: str = "team/llama", **config: Any) -> ModelFacts:
    changed = LLAMA | config
    return ModelFacts(changed, ParameterCounts.from_config(changed), repo=repo, commit=COMMIT, dtype="bfloat16")


def request(**changes: Any) -> JobRequest:
    return JobRequest.model_validate({"model": {"repo": "team/llama"}, "target": {"layers": 2}} | changes)


@given(
    positions=st.integers(16, 4096),
    prompt=st.none() | st.integers(1, 5000),
    new=st.none() | st.integers(2, 5000),
    length=st.none() | st.integers(8, 5000),
)
def test_whatever_is_accepted_fits_the_models_positions(
    positions: int, prompt: int | None, new: int | None, length: int | None
) -> None:
    asked = request(benchmark={"prompt_tokens": prompt, "new_tokens": new}, scoring={"sequence_length": length})
    model = facts(max_position_embeddings=positions)
    if length is not None and length > positions:
        with pytest.raises(OutOfRange, match=f"8 to {positions}"):
            resolve(asked, model)
        return
    if (prompt or 1) + (new or 2) > positions:
        with pytest.raises(OutOfRange, match=f"the model's {positions} positions together"):
            resolve(asked, model)
        return
    spec = resolve(asked, model)
    benchmark = spec["benchmark"]
    assert benchmark["prompt_tokens"] >= 1
    assert benchmark["new_tokens"] >= 2
    assert benchmark["prompt_tokens"] + benchmark["new_tokens"] <= positions
    assert prompt in (None, benchmark["prompt_tokens"])
    assert new in (None, benchmark["new_tokens"])
    assert spec["scoring"]["sequence_length"] <= positions


@given(
    target=st.one_of(
        st.builds(lambda value: {"sparsity": value}, st.floats(0.01, 0.99)),
        st.builds(lambda value: {"layers": value}, st.integers(1, 12)),
        st.builds(lambda a, b: {"window": [a, b]}, st.integers(0, 14), st.integers(0, 14)),
    ),
    kind=st.sampled_from([None, *BLOCK_KINDS]),
    layers=st.sampled_from([None, 1, 2]),
    selection=st.sampled_from([{}, {"windows": 2}, {"mode": "iterative"}, {"mode": "iterative", "rounds": 3}]),
)
def test_resolving_a_resolved_request_changes_nothing(
    target: dict[str, Any], kind: str | None, layers: int | None, selection: dict[str, Any]
) -> None:
    replacement = {"kind": kind, "layers": layers}
    try:
        spec = resolve(request(target=target, replacement=replacement, selection=selection), facts())
    except (BadTarget, ConflictingFields, ReplacementRefused):
        return
    again = JobRequest.model_validate(spec)
    assert resolve(again, facts()) == spec


@pytest.mark.parametrize(
    ("replacement", "error", "pointer"),
    [
        ({"kind": "ffn", "layers": 2}, ConflictingFields, "/replacement/layers"),
        ({"kind": "linear_merged", "init": "first"}, ReplacementRefused, "/replacement/init"),
        ({"kind": "none", "init": "closed_form"}, ReplacementRefused, "/replacement/init"),
        ({"kind": "none", "loss": "kd"}, ConflictingFields, "/replacement/loss"),
        ({"kind": "linear_merged", "epochs": 9}, ConflictingFields, "/replacement/epochs"),
        ({"kind": "none", "second_epochs": 9}, ConflictingFields, "/replacement/second_epochs"),
    ],
)
def test_replacements_that_mean_nothing_are_refused_by_the_field(
    replacement: dict[str, Any], error: type[Exception], pointer: str
) -> None:
    with pytest.raises(error) as caught:
        resolve(request(replacement=replacement), facts())
    assert getattr(caught.value, "pointer", None) == pointer


def test_a_kind_that_is_fitted_starts_from_the_fit() -> None:
    spec = resolve(request(replacement={"kind": "linear_residual"}), facts())
    assert spec["replacement"]["init"] == "closed_form"
    assert spec["scoring"]["adaptive"] is True


def test_healing_is_none_unless_asked_for_and_then_has_every_default() -> None:
    assert resolve(request(), facts())["healing"] is None
    asked = request(healing={"kind": "lora"}, replacement={"tokens": 50_000}, scoring={"sequence_length": 128})
    spec = resolve(asked, facts(hidden_size=2048))
    assert spec["healing"] == {
        "kind": "lora", "rank": 8, "alpha": 16.0, "epochs": 2, "learning_rate": 2e-4, "tokens": 50_000,
        "batch_size": 16,
    }  # fmt: skip
    assert resolve(JobRequest.model_validate(spec), facts(hidden_size=2048)) == spec


@pytest.mark.parametrize("tokens", [127, 50_001])
def test_healing_takes_its_tokens_from_the_replacements(tokens: int) -> None:
    asked = request(
        healing={"kind": "lora", "tokens": tokens}, replacement={"tokens": 50_000}, scoring={"sequence_length": 128}
    )
    with pytest.raises(OutOfRange, match="128 to 50000") as caught:
        resolve(asked, facts())
    assert caught.value.pointer == "/healing/tokens"


def test_the_outputs_name_comes_from_the_models() -> None:
    assert resolve(request(), facts())["output"]["repo"] == "team/llama-streamlined"
    assert resolve(request(), facts(repo="llama"))["output"]["repo"] == "llama-streamlined"


def test_a_default_name_that_would_be_too_long_asks_for_one() -> None:
    with pytest.raises(BadRepoName) as refusal:
        resolve(request(), facts(repo="team/" + "m" * 90))
    assert refusal.value.pointer == "/output/repo"


def test_a_named_data_set_trains_on_more_than_sampled_text() -> None:
    spec = resolve(request(calibration={"dataset": "ds-1"}), facts())
    assert spec["replacement"]["tokens"] == 1_000_000


def test_one_sequence_is_enough_where_evaluation_text_is_named() -> None:
    asked = {"scoring": {"sequence_length": 512}, "replacement": {"tokens": 512}}
    with pytest.raises(OutOfRange, match="at least 1024"):
        resolve(request(**asked), facts())
    resolve(request(**asked, evaluation={"perplexity": ["ds-1"]}), facts())


def test_a_sequence_too_long_for_the_sampled_text_is_the_sequences_fault() -> None:
    with pytest.raises(OutOfRange, match="at most 65536") as refusal:
        resolve(request(scoring={"sequence_length": 131_072}), facts(max_position_embeddings=131_072))
    assert refusal.value.pointer == "/scoring/sequence_length"
