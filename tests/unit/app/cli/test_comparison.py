"""What `streamline compare` prints."""

import pytest

from app.cli import exits
from app.cli.application import run
from app.cli.comparison import show_comparison
from app.report.comparison import compare
from tests.unit.app.report.test_comparison import JOBS, job


def test_a_row_per_job_with_the_front_marked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    show_comparison(compare(JOBS))
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["job", "verdict", "smaller"]
    assert rows[0].split()[:3] == ["1", "a", "pass"]
    assert ["×1.50*" in row for row in rows[:3]] == [True, False, False]
    assert "×1.40" in rows[1]
    assert "×1.40*" not in rows[1]


def test_at_80_columns_every_difference_is_told_with_ids_that_other_commands_take(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    jobs = [job(f"{number:032x}", 1.0, 1.1, 75, seed=number, replacement={"kind": "ffn"}) for number in range(8)]
    jobs.append(job(f"{8:032x}", 1.0, 1.1, 75, seed=7, replacement={"kind": "layer", "layers": 2}))
    show_comparison(compare(jobs))
    out = capsys.readouterr().out
    assert all(each["id"] in out for each in jobs)
    said = " ".join(out.split())
    assert "seed 1: 0 | 2: 1 | 3: 2 | 4: 3 | 5: 4 | 6: 5 | 7: 6 | 8, 9: 7" in said
    assert "replacement.kind 1, 2, 3, 4, 5, 6, 7, 8: ffn | 9: layer" in said
    assert max(map(len, out.splitlines())) <= 80


def test_a_measure_that_no_job_has_is_no_column_and_noise_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    noisy = job("n", 1.0, 1.1, 75, seed=4)
    noisy["result"]["metrics"]["intervals"] = {"speedup": [0.9, 1.2]}
    show_comparison(compare([JOBS[0], noisy]))
    out = capsys.readouterr().out
    assert "accuracy" not in out
    assert "stability" not in out
    assert "×1.10*?" in out
    assert "too noisy to tell" in out


def test_fewer_than_two_jobs_are_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "one", "one"]) == exits.BAD_USAGE
    assert "Name 2 to 32 different jobs" in capsys.readouterr().err
