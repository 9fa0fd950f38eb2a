"""What pipelines are given of a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from app.cli.pipeline import idempotency_key, summary, write_junit, write_summary

REQUEST: dict[str, Any] = {"model": {"repo": "team/llama"}, "target": {"sparsity": 0.25}}
GITHUB = {"GITHUB_REPOSITORY": "team/app", "GITHUB_RUN_ID": "7", "GITHUB_JOB": "compress", "GITHUB_RUN_ATTEMPT": "1"}
PAGE = "http://streamline.test/jobs/j1"
PASSED = {"name": "perplexity_ratio", "limit": 1.3, "value": 1.12, "interval": [1.1, 1.15], "passed": True}
MISSED = {"name": "speedup", "limit": 2, "value": 1.4, "passed": False}
RESULT = {
    "repo": "team/llama-streamlined", "revision": "a" * 40, "removed_layers": [3, 4, 5, 9],
    "metrics": {
        "sparsity": 0.25, "parameters": {"dense": 4000, "pruned": 3000},
        "perplexity": {"dense": {"a|b": 10.0}, "cut": {"a|b": None}, "pruned": {"a|b": 11.2}},
        "accuracy": {"dense": {"piqa": 0.7}, "pruned": {"piqa": 0.68}},
        "decode_tokens_per_second": {"dense": 100.0, "pruned": 140.0},
        "speedup": 1.29, "intervals": {"speedup": [0.68, 2.53]},
    },
}  # fmt: skip


def job(state: str = "succeeded", **more: Any) -> dict[str, Any]:
    return {
        "id": "j1", "state": state, "verdict": None, "gates": [], "error": None, "result": None,
        "spec": {"model": {"repo": "team/llama"}},
    } | more  # fmt: skip


def test_a_repeated_run_has_the_same_key_and_another_request_or_run_another_one() -> None:
    key = idempotency_key(REQUEST, GITHUB)
    assert key == idempotency_key(REQUEST, GITHUB | {"GITHUB_RUN_ATTEMPT": "2"})
    others = [
        idempotency_key(REQUEST | {"seed": 1}, GITHUB),
        idempotency_key(REQUEST, GITHUB | {"GITHUB_RUN_ID": "8"}),
        idempotency_key(REQUEST, {"CI_PROJECT_ID": "1", "CI_PIPELINE_ID": "7", "CI_JOB_NAME": "compress"}),
    ]
    assert len({key, *others}) == 4


def test_outside_of_pipelines_every_submission_is_a_new_job() -> None:
    assert idempotency_key(REQUEST, {"GITHUB_REPOSITORY": "team/app"}) is None


def test_the_summary_shows_verdict_gates_and_both_models() -> None:
    text = summary(job(verdict="fail", gates=[PASSED, MISSED], result=RESULT), PAGE)
    assert "## team/llama: **missed a gate**" in text
    assert "| perplexity_ratio | 1.3 | 1.12 | 1.1 to 1.15 | passed |" in text
    assert "| speedup | 2 | 1.4 |  | **missed** |" in text
    assert "| perplexity, a\\|b | 10 | not measured | 11.2 |" in text
    assert "| accuracy, piqa | 0.7 | | 0.68 |" in text
    assert "| decode tokens/s, each by itself | 100" in text
    assert "| speed-up (median of paired rounds) |  |  | x1.29 (0.68 to 2.53) |" in text
    assert f"[Job j1]({PAGE})" in text
    assert "25.0% smaller, without 4 layers (3 to 5, 9)" in text
    assert f"`team/llama-streamlined` at `{'a' * 40}`; `main` was not moved\n" in text
    assert "was not moved" not in summary(job(verdict="pass", gates=[PASSED], result=RESULT), PAGE)


def test_the_summary_of_a_failed_job_says_why() -> None:
    error = {"code": "out_of_memory", "detail": "Too large.", "stage": "train"}
    assert "`out_of_memory` in train: Too large." in summary(job("failed", error=error), PAGE)


def test_the_summary_goes_where_the_pipeline_says_and_adds_to_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "summary.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    write_summary(summary(job(), PAGE), None)
    assert page.read_text().startswith("before\n## team/llama")


def test_each_gate_is_a_test_case_and_a_missed_one_a_failure(tmp_path: Path) -> None:
    uncertain = MISSED | {"name": "stability", "interval": [0.71, 0.84]}
    write_junit(job(verdict="fail", gates=[PASSED, MISSED, uncertain], result=RESULT), tmp_path / "junit.xml")
    assert (tmp_path / "junit.xml").read_text().endswith("</testsuite>\n")
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "2", "0")
    assert [failure.get("message") for failure in suite.findall("testcase/failure")] == [
        "value 1.4, limit 2",
        "value 1.4, limit 2, 95 % interval 0.71 to 0.84",
    ]


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_job_that_did_not_succeed_is_an_error(tmp_path: Path, state: str) -> None:
    write_junit(job(state), tmp_path / "junit.xml")
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("errors")) == ("1", "1")
