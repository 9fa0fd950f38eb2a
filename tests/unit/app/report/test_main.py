"""`python -m app.report`: the page of a run that no service knows."""

import json
from pathlib import Path

import pytest

from app.report.__main__ import main
from tests.unit.app.report.reports import full


def test_an_engines_report_becomes_a_page_that_links_to_no_service(tmp_path: Path) -> None:
    (report := tmp_path / "report.json").write_text(json.dumps(full()))
    page = tmp_path / "report.html"
    assert main([str(report), str(page)]) == 0
    text = page.read_text()
    assert "Layers 5 to 12 of 24 gone" in " ".join(text.split())
    assert 'id="heatmap"' in text
    assert "/v1/jobs/" not in text
    assert "None" not in text


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"recipe": 1}'])
def test_what_is_no_report_is_one_sentence(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (report := tmp_path / "report.json").write_text(content)
    with pytest.raises(SystemExit) as ended:
        main([str(report), str(tmp_path / "report.html")])
    assert ended.value.code == 64
    assert "is no report of a run" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nowhere.json"), str(tmp_path / "report.html")])
    assert "nowhere.json: No such file or directory" in capsys.readouterr().err
