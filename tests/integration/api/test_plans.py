"""Plans: the arithmetic of a job without the job, from a repository or from a config alone."""

from typing import Any

import pytest

from tests.integration.api.conftest import JOB, MODEL, Service

LLAMA_2_7B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vocab_size": 32000,
}


def plan(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    answer = service.http.post("/v1/plans", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("kind", "removed", "percent"), [("none", 8, 24.0), ("ffn", 9, 25.0), ("swiglu", 9, 25.0), ("layer", 9, 24.0)]
)
def test_the_papers_table_comes_out_of_the_config_alone(
    shared_service: Service, kind: str, removed: int, percent: float
) -> None:
    body = {"model": {"config": LLAMA_2_7B}, "target": {"sparsity": 0.25}, "replacement": {"kind": kind}}
    answer = plan(shared_service, body)
    assert answer["parameters"]["dense"] == 6_738_415_616
    assert answer["removed_count"] == removed
    assert round(100 * answer["sparsity"], 1) == percent
    assert (answer["added_parameters"] > 0) == (kind != "none")
    assert answer["removed_layers"] is None, "only the scores can tell"


def test_a_native_block_counts_as_the_layer_that_it_is_written_as(shared_service: Service) -> None:
    body = {"model": {"config": LLAMA_2_7B}, "target": {"sparsity": 0.25}, "output": {"format": "native"}}
    answer = plan(shared_service, body | {"replacement": {"kind": "swiglu"}})
    assert (answer["removed_count"], round(100 * answer["sparsity"], 1)) == (9, 24.0)


def test_a_window_is_answered_with_its_layers(shared_service: Service) -> None:
    answer = plan(shared_service, JOB | {"target": {"window": [4, 7]}})
    assert answer["removed_layers"] == [4, 5, 6]
    assert answer["parameters"]["dense"] == 4_954_240, "counted from the safetensors headers"
    assert answer["estimated"]["disk_bytes"] > 0
    assert answer["estimated"]["memory_bytes"] > answer["parameters"]["dense"] * 4


@pytest.mark.parametrize(
    ("selection", "rounds"), [({"windows": 2}, [14]), ({"mode": "iterative"}, [7, 7]), ({}, [13])], ids=str
)
def test_the_arithmetic_of_several_replacements_is_shown(
    shared_service: Service, selection: dict[str, Any], rounds: list[int]
) -> None:
    answer = plan(shared_service, JOB | {"target": {"layers": 12}, "selection": selection})
    count, layer = 1 + bool(selection), answer["replacements"]["parameters_each"]
    assert answer["removed_layers"] is None, "only the scores can tell"
    assert answer["rounds"] == rounds
    assert answer["removed_count"] == 12 + count
    assert answer["added_parameters"] == count * layer
    assert answer["parameters"]["dense"] - answer["parameters"]["pruned"] == 12 * layer
    assert answer["replacements"] == {
        "count": count,
        "parameters_each": layer,
        "removed_parameters": (12 + count) * layer,
        "share_given_back": count / (12 + count),
    }


def test_a_plan_makes_no_job(shared_service: Service) -> None:
    plan(shared_service, JOB)
    assert shared_service.http.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize(
    ("model", "code", "pointer"),
    [
        ({"config": LLAMA_2_7B | {"model_type": "deepseek_v3"}}, "plan_needs_weights", "/model/config"),
        ({"config": LLAMA_2_7B | {"num_kv_shared_layers": 4}}, "unsupported_model", "/model/config"),
        ({"config": LLAMA_2_7B | {"model_type": "mamba"}}, "plan_needs_weights", "/model/config"),
        ({"config": {}}, "plan_needs_weights", "/model/config"),
        ({"config": LLAMA_2_7B | {"hidden_size": "wide"}}, "unreadable_model", "/model/config"),
        ({"config": LLAMA_2_7B | {"hidden_size": 0}}, "unreadable_model", "/model/config"),
        ({"config": LLAMA_2_7B | {"num_hidden_layers": 10**12}}, "unreadable_model", "/model/config"),
        ({"config": LLAMA_2_7B | {"vocab_size": 10**400}}, "unreadable_model", "/model/config"),
        ({"config": LLAMA_2_7B | {"head_dim": "x"}}, "unreadable_model", "/model/config"),
        ({"config": LLAMA_2_7B | {"head_dim": [1]}}, "unreadable_model", "/model/config"),
        ({"config": LLAMA_2_7B | {"max_position_embeddings": None}, "revision": "x"}, "conflicting_fields", "/model"),
        ({"config": LLAMA_2_7B, "repo": MODEL}, "conflicting_fields", "/model"),
        ({}, "conflicting_fields", "/model"),
        ({"repo": "team/none"}, "unknown_model", "/model/repo"),
        ({"config": [1]}, "wrong_type", "/model/config"),
    ],
)
def test_a_model_that_cannot_be_planned_is_refused(
    shared_service: Service, model: dict[str, Any], code: str, pointer: str
) -> None:
    problem = shared_service.refused({"model": model, "target": {"sparsity": 0.25}}, path="/v1/plans")
    assert (problem["code"], problem["pointer"]) == (code, pointer)


def test_a_plan_refuses_what_a_job_would_refuse(shared_service: Service) -> None:
    for changes in ({"target": {"layers": 23}}, {"calibration": {"dataset": "none"}}, {"seed": -1}):
        as_plan = shared_service.refused(JOB | changes, path="/v1/plans")
        as_job = shared_service.refused(JOB | changes)
        for problem in (as_plan, as_job):
            del problem["request_id"]
        assert as_plan == as_job


def test_an_unknown_data_set_is_refused_beside_an_inline_config_too(shared_service: Service) -> None:
    body = {"model": {"config": LLAMA_2_7B}, "target": {"layers": 2}, "calibration": {"dataset": "none"}}
    assert shared_service.refused(body, path="/v1/plans")["code"] == "unknown_dataset"
