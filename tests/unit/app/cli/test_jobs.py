"""What the terminal shows of a finished job."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from app.cli.jobs import announce, metrics_table, plan_sentences, show_job, show_jobs
from app.client import Streamline

METRICS: dict[str, Any] = {
    "sparsity": 0.25, "parameters": {"dense": 4000, "pruned": 3000},
    "perplexity": {"dense": {"text": 10.0}, "cut": {"text": None}, "pruned": {"text": 12.5}},
}  # fmt: skip


def shown(metrics: dict[str, Any]) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(metrics_table(metrics))
    return capture.get()


def test_what_was_not_measured_is_said_and_not_invented() -> None:
    text = shown(METRICS | {"decode_tokens_per_second": {"dense": None, "pruned": 25.0}})
    assert "not measured" in text
    assert "25.0" in text
    assert "not a number" in text


def test_the_speed_up_has_a_row_because_the_rates_do_not_give_it() -> None:
    rates = {"decode_tokens_per_second": {"dense": 33.0, "pruned": 25.0}, "speedup": 1.29}
    assert "x1.29 (0.68 to 2.53)" in shown(METRICS | rates | {"intervals": {"speedup": [0.68, 2.53]}})
    assert "decode tokens/s, each by itself" in shown(METRICS | rates), "or 25 over 33 would contradict x1.29"
    assert "x1.29 " in shown(METRICS | rates | {"intervals": {"speedup": None}})


def test_what_a_log_gets_is_whole_lines_of_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    long_name = "perplexity_ratio/" + "text" * 30
    job = {
        "id": "0" * 32, "state": "succeeded", "verdict": "pass", "error": None, "progress": 1.0,
        "created_at": "2026-01-01T00:00:00", "spec": {"model": {"repo": "team/" + "llama" * 20}},
        "gates": [{"name": long_name, "limit": 1.3, "value": 1.1234567, "interval": [1.1, 1.2], "passed": True}],
        "result": {"metrics": METRICS, "repo": "team/out", "revision": "a" * 40},
    }  # fmt: skip
    show_job(job)
    assert capsys.readouterr().out.rstrip().endswith("a" * 40)
    show_job(job | {"verdict": "fail"})
    show_jobs([job, job])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"gate {long_name}: passed") and line.endswith("1.2)") for line in lines)
    assert len([line for line in lines if line.startswith("0" * 32) and "llama" * 20 in line]) == 2
    assert any(line.endswith(f"{'a' * 40}; `main` was not moved") for line in lines)
    assert not set("".join(lines)) & set("│┃━─└┏")


def test_where_a_job_can_be_looked_at_is_its_page(capsys: pytest.CaptureFixture[str]) -> None:
    with Streamline("http://streamline.test/") as service:
        announce(service, {"id": "j1", "state": "running"})
    assert capsys.readouterr().out == "job j1 is running: http://streamline.test/jobs/j1\n"


PLAN: dict[str, Any] = {
    "removed_layers": None, "removed_count": 7, "added_parameters": 700, "rounds": [7],
    "replacements": {"count": 1, "share_given_back": 0.14}, "parameters": {"dense": 24_000, "pruned": 18_000},
    "sparsity": 0.25, "estimated": {"disk_bytes": 3_000_000, "memory_bytes": 14_000_000_000},
}  # fmt: skip


def test_a_plan_says_which_layers_why_and_what_it_costs() -> None:
    said = plan_sentences(PLAN, {"scoring": {"metric": "angular"}})
    assert said == [
        "Removes 7 decoder layers: those that change the hidden state least; the job scores every window by angular to "
        "find them.",
        "Puts in their place: layer, 700 parameters.",
        "24,000 -> 18,000 parameters: 25.0% smaller.",
        "Needs about 14.0 GB of memory and 3 MB of disk beside the dense model's own files.",
    ]


def test_a_plan_of_chosen_layers_and_of_several_rounds_says_so() -> None:
    several = PLAN | {"removed_layers": [3, 4], "rounds": [4, 3], "replacements": {"count": 2, "share_given_back": 0.3}}
    said = plan_sentences(several, {"replacement": {"kind": "ffn"}})
    assert said[0] == "Removes 7 decoder layers in 2 rounds (4, 3): layers 3 to 4, as the request says."
    assert said[2] == "2 replacements give 30.0% of what goes back."
