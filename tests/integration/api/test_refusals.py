"""What bad input gets: a problem document that names the field and the allowed range, and nothing in the queue."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.hub.publishing import commit_files, stage_files
from tests.integration.api.conftest import JOB, MODEL, Service, import_variant, jsonl, problem_of


@pytest.fixture(autouse=True)
def nothing_is_queued(shared_service: Service) -> Iterator[None]:
    yield
    assert shared_service.http.get("/v1/jobs").json()["items"] == []


FIELDS: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("an unknown field", {"targt": 1}, "unknown_field", "/targt", "did you mean 'target'?"),
    ("an unknown field below", {"replacement": {"lr": 1}}, "unknown_field", "/replacement/lr", "learning_rate"),
    ("sparsity 0", {"target": {"sparsity": 0}}, "out_of_range", "/target/sparsity", "more than 0 and less than 1"),
    ("sparsity 1", {"target": {"sparsity": 1}}, "out_of_range", "/target/sparsity", "more than 0 and less than 1"),
    ("a negative sparsity", {"target": {"sparsity": -0.1}}, "out_of_range", "/target/sparsity", "less than 1"),
    ("no target", {"target": {}}, "conflicting_fields", "/target", "exactly one of sparsity, layers and window"),
    ("two targets", {"target": {"layers": 2, "sparsity": 0.1}}, "conflicting_fields", "/target", "sparsity and layers"),
    ("a text as number", {"target": {"sparsity": "0.25"}}, "wrong_type", "/target/sparsity", "valid number"),
    ("a window of one", {"target": {"window": [3]}}, "out_of_range", "/target/window", "2"),
    ("a window outside", {"target": {"window": [20, 30]}}, "bad_target", "/target/window", "<= 24"),
    ("an empty window", {"target": {"window": [5, 5]}}, "bad_target", "/target/window", "start < end"),
    ("too few layers left", {"target": {"layers": 23}}, "bad_target", "/target/layers", "from 1 to 22"),
    ("too sparse", {"target": {"sparsity": 0.99}}, "bad_target", "/target/sparsity", "reachable range"),
    ("the whole model", {"target": {"window": [0, 24]}}, "bad_target", "/target/window", "at most 23"),
    ("another metric", {"scoring": {"metric": "taylor"}}, "not_available", "/scoring/metric", "'task'"),
    ("another mode", {"selection": {"mode": "greedy"}}, "not_available", "/selection/mode", "'iterative'"),
    ("no windows", {"selection": {"windows": 0}}, "out_of_range", "/selection/windows", "1 to 64"),
    (
        "one round",
        {"selection": {"mode": "iterative", "rounds": 1}},
        "conflicting_fields",
        "/selection/rounds",
        "at least 2",
    ),
    ("rounds at once", {"selection": {"rounds": 2}}, "conflicting_fields", "/selection/rounds", "mode iterative"),
    (
        "windows in rounds",
        {"selection": {"mode": "iterative", "windows": 2}},
        "conflicting_fields",
        "/selection/windows",
        "rounds or windows",
    ),
    (
        "a window in rounds",
        {"selection": {"mode": "iterative"}, "target": {"window": [3, 6]}},
        "conflicting_fields",
        "/selection/mode",
        "target.window",
    ),
    (
        "a window of two",
        {"selection": {"windows": 2}, "target": {"window": [3, 6]}},
        "conflicting_fields",
        "/selection/windows",
        "target.window",
    ),
    (
        "a block of its own in two windows",
        {"selection": {"windows": 2}, "replacement": {"kind": "swiglu"}},
        "replacement_refused",
        "/replacement/kind",
        "native",
    ),
    (
        "one size for two windows",
        {"selection": {"windows": 2}, "scoring": {"metric": "task"}},
        "conflicting_fields",
        "/scoring/metric",
        "cosine",
    ),
    (
        "one lead of two windows",
        {"selection": {"windows": 2}, "scoring": {"adaptive": True}},
        "conflicting_fields",
        "/scoring/adaptive",
        "leave it out",
    ),
    (
        "too little for six rounds",
        {"selection": {"mode": "iterative", "rounds": 6}, "target": {"layers": 5}},
        "bad_target",
        "/target/layers",
        "6 replacements of 184,576 parameters",
    ),
    (
        "too many windows",
        {"selection": {"windows": 20}, "target": {"sparsity": 0.3}},
        "bad_target",
        "/target/sparsity",
        "no room for 20 windows",
    ),
    ("another kind", {"replacement": {"kind": "linear"}}, "not_available", "/replacement/kind", "'linear_merged'"),
    ("another start", {"replacement": {"init": "zero"}}, "not_available", "/replacement/init", "'closed_form'"),
    ("healing without a kind", {"healing": {}}, "missing_field", "/healing/kind", "kind"),
    ("another healing", {"healing": {"kind": "dora"}}, "not_available", "/healing/kind", "'lora'"),
    ("no rank", {"healing": {"kind": "lora", "rank": 0}}, "out_of_range", "/healing/rank", "1 to 1024"),
    ("healing's field", {"healing": {"kind": "lora", "dropout": 0.1}}, "unknown_field", "/healing/dropout", "alpha"),
    (
        "more tokens to heal than there are",
        {"healing": {"kind": "lora", "tokens": 100_000}, "replacement": {"tokens": 50_000}},
        "out_of_range",
        "/healing/tokens",
        "256 to 50000",
    ),
    ("no layers", {"replacement": {"layers": 0}}, "out_of_range", "/replacement/layers", "1 to 64"),
    (
        "layers that are none",
        {"replacement": {"kind": "ffn", "layers": 2}},
        "conflicting_fields",
        "/replacement/layers",
        "one block at most",
    ),
    (
        "more layers than go",
        {"target": {"window": [4, 6]}, "replacement": {"layers": 3}},
        "conflicting_fields",
        "/replacement/layers",
        "more than the 2 of window",
    ),
    (
        "nothing to fold into",
        {"target": {"window": [0, 4]}, "replacement": {"kind": "linear_merged"}},
        "bad_target",
        "/target/window",
        "start at 1 or later",
    ),
    (
        "a start of a fit",
        {"replacement": {"kind": "linear_residual", "init": "first"}},
        "replacement_refused",
        "/replacement/init",
        "closed_form",
    ),
    (
        "a linear map without code",
        {"replacement": {"kind": "linear_residual"}, "output": {"format": "native"}},
        "native_form_refused",
        "/output/format",
        "linear_merged",
    ),
    ("another loss", {"replacement": {"loss": "hinge"}}, "not_available", "/replacement/loss", "'mse+kd'"),
    ("no epochs", {"replacement": {"epochs": 0}}, "out_of_range", "/replacement/epochs", "1 to 10000"),
    (
        "a task without data",
        {"evaluation": {"tasks": ["piqa"]}},
        "missing_task_data",
        "/evaluation/tasks/0",
        "piqa.jsonl",
    ),
    ("an unknown task", {"evaluation": {"tasks": ["piqua"]}}, "unknown_task", "/evaluation/tasks/0", "piqa"),
    ("no questions", {"evaluation": {"limit": 0}}, "out_of_range", "/evaluation/limit", "1 to"),
    (
        "a gate on a task that is not asked",
        {"gates": {"tasks": {"piqa": {"min_stability": 0.8}}}},
        "gate_not_measured",
        "/gates/tasks/piqa",
        "evaluation.tasks",
    ),
    ("flips", {"gates": {"max_flip_rate": 0.1}}, "gate_not_measured", "/gates/max_flip_rate", "evaluation.tasks"),
    ("too much stability", {"gates": {"min_stability": 1.1}}, "out_of_range", "/gates/min_stability", "1"),
    ("stability", {"gates": {"min_stability": 0.8}}, "gate_not_measured", "/gates/min_stability", "evaluation.tasks"),
    (
        "accuracy",
        {"gates": {"min_accuracy_retained": 0.9}},
        "gate_not_measured",
        "/gates/min_accuracy_retained",
        "evaluation.tasks",
    ),
    ("a gate of zero", {"gates": {"min_speedup": 0}}, "out_of_range", "/gates/min_speedup", "more than 0"),
    ("a long sequence", {"scoring": {"sequence_length": 513}}, "out_of_range", "/scoring/sequence_length", "8 to 512"),
    ("a long prompt", {"benchmark": {"prompt_tokens": 512}}, "out_of_range", "/benchmark/prompt_tokens", "1 to 510"),
    ("one new token", {"benchmark": {"new_tokens": 1}}, "out_of_range", "/benchmark/new_tokens", "2 to"),
    (
        "prompt and new",
        {"benchmark": {"prompt_tokens": 500, "new_tokens": 100}},
        "out_of_range",
        "/benchmark/prompt_tokens",
        "with new_tokens 100 are 1 to 412",
    ),
    (
        "another long prompt",
        {"benchmark": {"new_tokens": 100, "other_prompt_tokens": [64, 413]}},
        "out_of_range",
        "/benchmark/other_prompt_tokens/1",
        "1 to 412",
    ),
    (
        "an unknown rival",
        {"benchmark": {"rivals": [MODEL, "team/none"]}},
        "unknown_model",
        "/benchmark/rivals/1",
        "streamline import",
    ),
    (
        "an unknown revision of a rival",
        {"benchmark": {"rivals": [f"{MODEL}@nope"]}},
        "unknown_revision",
        "/benchmark/rivals/0",
        "/refs",
    ),
    (
        "a rival named twice",
        {"benchmark": {"rivals": [MODEL, f"{MODEL}@main"]}},
        "conflicting_fields",
        "/benchmark/rivals/1",
        "once",
    ),
    ("a stride with gaps", {"evaluation": {"stride": 257}}, "out_of_range", "/evaluation/stride", "1 to 256"),
    ("a stride of no text", {"evaluation": {"stride": 8}}, "conflicting_fields", "/evaluation/stride", "names none"),
    (
        "vllm with code of its own",
        {"benchmark": {"backend": "vllm"}, "replacement": {"kind": "swiglu"}},
        "conflicting_fields",
        "/benchmark/backend",
        "output.format native",
    ),
    ("vllm where it is not", {"benchmark": {"backend": "vllm"}}, "not_available", "/benchmark/backend", "transformers"),
    ("too many labels", {"labels": {f"k{n}": "v" for n in range(33)}}, "out_of_range", "/labels", "at most 32"),
    ("a strange label", {"labels": {"a b": "v"}}, "out_of_range", "/labels", "letters, digits"),
    ("a negative seed", {"seed": -1}, "out_of_range", "/seed", "0 to"),
    ("an unknown model", {"model": {"repo": "team/none"}}, "unknown_model", "/model/repo", "streamline import"),
    (
        "an unknown revision",
        {"model": {"repo": MODEL, "revision": "nope"}},
        "unknown_revision",
        "/model/revision",
        "/refs",
    ),
    ("dots in a name", {"model": {"repo": "../etc/passwd"}}, "bad_repo_name", "/model/repo", "Allowed:"),
    ("odd characters", {"model": {"repo": "team/mo del"}}, "bad_repo_name", "/model/repo", "letters, digits"),
    ("a bad output", {"output": {"repo": "team/.."}}, "bad_repo_name", "/output/repo", "Allowed:"),
    ("the dense repo as output", {"output": {"repo": MODEL}}, "bad_repo_name", "/output/repo", "another name"),
    (
        "a native ffn",
        {"replacement": {"kind": "ffn"}, "output": {"format": "native"}},
        "native_form_refused",
        "/output/format",
        "swiglu",
    ),
    ("an unknown data set", {"calibration": {"dataset": "c4"}}, "unknown_dataset", "/calibration/dataset", "POST"),
    (
        "an unknown evaluation set",
        {"evaluation": {"perplexity": ["builtin:self"]}},
        "unknown_dataset",
        "/evaluation/perplexity/0",
        "cannot be used for evaluation",
    ),
    (
        "more tokens than are sampled",
        {"replacement": {"tokens": 200_000}},
        "out_of_range",
        "/replacement/tokens",
        "1 to 131072",
    ),
    ("too few tokens", {"replacement": {"tokens": 300}}, "out_of_range", "/replacement/tokens", "at least 512"),
    ("a control character", {"model": {"repo": "a\0b"}}, "invalid_request", "/model/repo", "control characters"),
]


@pytest.mark.parametrize(("case", "changes", "code", "pointer", "says"), FIELDS, ids=[row[0] for row in FIELDS])
def test_a_bad_field_is_named_with_what_is_allowed(
    shared_service: Service, case: str, changes: dict[str, Any], code: str, pointer: str, says: str
) -> None:
    problem = shared_service.refused(JOB | changes)
    assert (problem["code"], problem["pointer"]) == (code, pointer)
    assert says in problem["detail"]


def test_every_fault_of_a_request_is_listed_and_the_first_is_at_the_top(shared_service: Service) -> None:
    problem = shared_service.refused({"target": {"sparsity": 2}, "seed": -1})
    listed = {(error["pointer"], error["code"]) for error in problem["errors"]}
    assert listed == {("/target/sparsity", "out_of_range"), ("/seed", "out_of_range"), ("/model", "missing_field")}
    first = problem["errors"][0]
    assert {key: problem[key] for key in first} == first


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_only_finite_numbers_are_numbers(shared_service: Service, number: str) -> None:
    body = f'{{"model": {{"repo": "{MODEL}"}}, "target": {{"sparsity": {number}}}}}'
    answer = shared_service.http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert problem_of(answer, 422)["pointer"] == "/target/sparsity"


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}", b"\xff\xfe"])
def test_a_body_that_is_no_json_is_a_bad_request_and_no_fault(shared_service: Service, body: bytes) -> None:
    answer = shared_service.http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}
    assert problem_of(answer, answer.status_code)["code"] in {"malformed_body", "missing_field"}


def test_half_a_surrogate_pair_never_reaches_the_database(shared_service: Service) -> None:
    body = f'{{"model": {{"repo": "{MODEL}"}}, "target": {{"layers": 2}}, "labels": {{"a": "\\ud800"}}}}'
    answer = shared_service.http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert problem_of(answer, 422)["pointer"] == "/labels"


def test_another_media_type_is_named_as_the_mistake(shared_service: Service) -> None:
    answer = shared_service.http.post("/v1/jobs", content=b"{}", headers={"Content-Type": "text/plain"})
    assert "application/json" in problem_of(answer, 415)["detail"]


def test_a_body_over_the_limit_is_refused_by_its_length(shared_service: Service) -> None:
    answer = shared_service.http.post("/v1/jobs", json=JOB | {"labels": {"a": "x" * (1 << 20)}})
    assert "1,048,576" in problem_of(answer, 413)["detail"]


def test_a_body_over_the_limit_is_refused_while_it_streams_in(shared_service: Service) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(17):
            yield b" " * (1 << 16)

    with httpx.Client(base_url=shared_service.url) as client:
        answer = client.post("/v1/jobs", content=chunks(), headers={"Content-Type": "application/json"})
    assert problem_of(answer, 413)["code"] == "body_too_large"


def test_an_unsupported_family_gets_the_list_of_supported_ones(
    shared_service: Service, stories_model: Path, tmp_path: Path
) -> None:
    import_variant(shared_service, stories_model, tmp_path / "m", "team/bert", model_type="bert")
    problem = shared_service.refused(JOB | {"model": {"repo": "team/bert"}})
    assert (problem["code"], problem["pointer"]) == ("unsupported_family", "/model/repo")
    for family in ("llama", "mistral", "qwen2", "qwen3", "opt", "gpt_neox"):
        assert family in problem["detail"]


def test_a_model_with_code_of_its_own_is_told_what_to_send_instead(
    shared_service: Service, stories_model: Path, tmp_path: Path
) -> None:
    import_variant(shared_service, stories_model, tmp_path / "m", "team/cut", streamline={"kind": "ffn"})
    problem = shared_service.refused(JOB | {"model": {"repo": "team/cut"}})
    assert (problem["code"], problem["pointer"]) == ("unsupported_model", "/model/repo")
    assert "compress the dense model" in problem["detail"]


CANNOT_BE_CUT: list[tuple[str, dict[str, Any], str, str]] = [
    ("awq", {"quantization_config": {"quant_method": "awq"}}, "unsupported_model", "quantised and packed"),
    ("shared", {"num_kv_shared_layers": 4}, "unsupported_model", "num_kv_shared_layers"),
    ("hybrid", {"model_type": "jamba"}, "unsupported_family", "recurrent state"),
    ("both", {"model_type": "t5", "is_encoder_decoder": True}, "unsupported_family", "encoder-decoder"),
    ("wrapper", {"model_type": "llava", "text_config": {"model_type": "llama"}}, "unsupported_family", "llama"),
    ("types", {"layer_types": ["full_attention"]}, "unreadable_model", "one entry per layer (24)"),
    ("list", {"attn_type_list": [1] * 24}, "unreadable_model", "attn_type_list"),
]


@pytest.mark.parametrize(("name", "config", "code", "reason"), CANNOT_BE_CUT, ids=[case[0] for case in CANNOT_BE_CUT])
def test_what_cannot_be_cut_safely_is_refused_with_the_reason(
    shared_service: Service, stories_model: Path, tmp_path: Path, name: str, config: dict[str, Any], code: str,
    reason: str,
) -> None:  # fmt: skip
    import_variant(shared_service, stories_model, tmp_path / "m", f"team/{name}", **config)
    problem = shared_service.refused(JOB | {"model": {"repo": f"team/{name}"}})
    assert (problem["code"], problem["pointer"]) == (code, "/model/repo")
    assert reason in problem["detail"]


def test_a_block_that_a_mixture_of_experts_has_no_form_for_is_refused(
    shared_service: Service, stories_model: Path, tmp_path: Path
) -> None:
    import_variant(shared_service, stories_model, tmp_path / "m", "team/experts", model_type="mixtral")
    problem = shared_service.refused(JOB | {"model": {"repo": "team/experts"}, "replacement": {"kind": "swiglu"}})
    assert (problem["code"], problem["pointer"]) == ("replacement_refused", "/replacement/kind")
    assert "mixture of experts" in problem["detail"]


@pytest.mark.parametrize("layers", [0, "many", 10**9])
def test_a_config_that_makes_no_sense_is_an_unreadable_model(
    shared_service: Service, stories_model: Path, tmp_path: Path, layers: Any
) -> None:
    import_variant(
        shared_service, stories_model, tmp_path / "m", f"team/odd-{str(layers)[:4]}", num_hidden_layers=layers
    )
    problem = shared_service.refused(JOB | {"model": {"repo": f"team/odd-{str(layers)[:4]}"}})
    assert (problem["code"], problem["pointer"]) == ("unreadable_model", "/model/repo")


def publish(service: Service, repo: str, directory: Path) -> None:
    """Put files into the hub without the import's own checks, as an upload could."""
    staged = stage_files(service.parts.blobs, directory, directory.iterdir())
    with service.sessions.begin() as session:
        commit_files(session, repo, staged, "Odd")


def test_a_model_without_safetensors_is_told_how_to_be_converted(
    shared_service: Service, stories_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes((stories_model / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    publish(shared_service, "team/pickled", tmp_path)
    problem = shared_service.refused(JOB | {"model": {"repo": "team/pickled"}})
    assert (problem["code"], problem["pointer"]) == ("no_safetensors", "/model/repo")
    assert "safe_serialization=True" in problem["detail"]


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_broken_file_of_the_model_is_named(
    shared_service: Service, stories_model: Path, tmp_path: Path, broken: str
) -> None:
    for path in stories_model.iterdir():
        (tmp_path / path.name).write_bytes(b"{broken" if path.name == broken else path.read_bytes())
    repo = f"team/broken-{broken.partition('.')[0]}"
    publish(shared_service, repo, tmp_path)
    text = shared_service.upload(jsonl("word " * 3000), name=repo)
    problem = shared_service.refused(JOB | {"model": {"repo": repo}, "calibration": {"dataset": text["id"]}})
    assert (problem["code"], problem["pointer"]) == ("unreadable_model", "/model/repo")
    assert broken in problem["detail"]


def test_a_model_without_a_config_is_unreadable(shared_service: Service, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    publish(shared_service, "team/empty", tmp_path)
    problem = shared_service.refused(JOB | {"model": {"repo": "team/empty"}})
    assert (problem["code"], problem["pointer"]) == ("unreadable_model", "/model/repo")


def test_text_too_short_for_one_sequence_says_what_was_found_and_needed(shared_service: Service) -> None:
    short = shared_service.upload(jsonl("Once upon a time."), name="short")
    problem = shared_service.refused(JOB | {"calibration": {"dataset": short["id"]}})
    assert (problem["code"], problem["pointer"]) == ("text_too_short", "/calibration/dataset")
    assert "has 6 tokens and 512 are needed" in problem["detail"]
    long = shared_service.upload(jsonl("Once upon a time, " * 500), name="long")
    body = JOB | {"calibration": {"dataset": long["id"]}, "evaluation": {"perplexity": [short["id"]]}}
    problem = shared_service.refused(body)
    assert (problem["code"], problem["pointer"]) == ("text_too_short", "/evaluation/perplexity/0")


def test_a_missing_column_gets_the_list_of_those_that_are_there(shared_service: Service) -> None:
    dataset = shared_service.upload(jsonl("a", column="story"), name="stories")
    problem = shared_service.refused(JOB | {"calibration": {"dataset": dataset["id"]}})
    assert (problem["code"], problem["pointer"]) == ("unknown_column", "/calibration/column")
    assert "story" in problem["detail"]


def test_an_unknown_data_set_gets_the_nearest_ones(shared_service: Service) -> None:
    dataset = shared_service.upload(jsonl("a"), name="wikitext-train")
    problem = shared_service.refused(JOB | {"calibration": {"dataset": "wikitext-trian"}})
    assert f"{dataset['id']} (wikitext-train)" in problem["detail"]


def test_evaluation_data_sets_of_one_name_are_told_apart_by_their_ids(shared_service: Service) -> None:
    first = shared_service.upload(jsonl("first " * 600), name="twin")
    second = shared_service.upload(jsonl("second " * 600), name="twin")
    twins = JOB | {"evaluation": {"perplexity": [first["id"], second["id"]]}}
    assert shared_service.http.post("/v1/plans", json=twins).status_code == 200
    problem = shared_service.refused(JOB | {"evaluation": {"perplexity": [first["id"], first["id"]]}})
    assert (problem["code"], problem["pointer"]) == ("conflicting_fields", "/evaluation/perplexity/1")


def test_unknown_paths_and_methods_are_problems_too(shared_service: Service) -> None:
    assert problem_of(shared_service.http.get("/nope"), 404)["code"] == "not_found"
    answer = shared_service.http.delete("/v1/jobs")
    assert "GET" in problem_of(answer, 405)["detail"]
    assert "POST" in answer.headers["allow"]
    assert problem_of(shared_service.http.get("/v1/jobs/none"), 404)["code"] == "job_not_found"
    assert problem_of(shared_service.http.get("/v1/datasets/none"), 404)["code"] == "dataset_not_found"


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("state=lost", "state"),
        ("cursor=AAAA", "cursor"),
        ("cursor=%ff", "cursor"),
        ("label=novalue", "label"),
    ],
)
def test_a_bad_query_parameter_is_named(shared_service: Service, query: str, parameter: str) -> None:
    assert problem_of(shared_service.http.get(f"/v1/jobs?{query}"), 422)["parameter"] == parameter
