"""What `streamline compare` prints."""

import pytest

from app.cli import exits
from app.cli.application import run
from app.cli.comparison import show_comparison
from app.report.comparison import compare
from tests.unit.app.report.test_comparison import JOBS


def test_a_row_per_job_with_the_front_marked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    show_comparison(compare(JOBS))
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["job", "verdict", "smaller"]
    assert rows[0].split()[:2] == ["a", "pass"]
    assert ["×1.50*" in row for row in rows[:3]] == [True, False, False]
    assert "×1.40" in rows[1]
    assert "×1.40*" not in rows[1]


def test_fewer_than_two_jobs_are_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "one", "one"]) == exits.BAD_USAGE
    assert "Name 2 to 32 different jobs" in capsys.readouterr().err
