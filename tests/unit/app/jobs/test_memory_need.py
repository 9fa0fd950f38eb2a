"""Which jobs wait for a card that holds their model whole, however large it is."""

from typing import Any

import pytest

from app.core.device_memory import card_bytes
from app.core.selection import ParameterCounts
from app.jobs.facts import ModelFacts
from app.jobs.memory_need import required_memory
from app.jobs.planning import plan_of
from app.jobs.resolution import resolve
from app.jobs.spec.request import JobRequest
from tests.unit.app.core.configs import LLAMA_2_7B

OWN_TEXT: dict[str, Any] = {"calibration": {"dataset": "my-text"}}
SMALL = card_bytes(8)


def need_of(largest: int = SMALL, **changes: Any) -> int:
    counts = ParameterCounts.from_config(LLAMA_2_7B)
    facts = ModelFacts(LLAMA_2_7B, counts, repo="a/b", commit="0" * 40, dtype="bfloat16")
    asked = {"model": {"repo": "a/b"}, "target": {"sparsity": 0.25}} | OWN_TEXT | changes
    request = JobRequest.model_validate(asked)
    spec = resolve(request, facts)
    return required_memory(facts, spec, plan_of(request, facts, spec), largest=largest)


@pytest.mark.parametrize(
    "changes",
    [
        {"calibration": {}},
        {"healing": {"kind": "lora"}},
        {"replacement": {"loss": "mse+kd"}},
        {"scoring": {"metric": "perplexity"}},
        {"gates": {"min_speedup": 1.1}},
    ],
    ids=str,
)
def test_a_job_that_would_fail_or_miss_its_gate_in_layers_waits_for_a_card_that_holds_it(
    changes: dict[str, Any],
) -> None:
    assert need_of(**changes) > card_bytes(16)


@pytest.mark.parametrize(
    "changes", [{}, {"replacement": {"loss": "cosine"}}, {"replacement": {"kind": "none"}}], ids=str
)
def test_a_job_of_the_states_alone_goes_to_the_largest_card_that_there_is(changes: dict[str, Any]) -> None:
    assert need_of(**changes) == SMALL
    assert card_bytes(12) < need_of(card_bytes(24), **changes) < card_bytes(24), "where one holds it, to that one"
