"""`streamline stability` on what lm-evaluation-harness and OpenCompass write."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from app.cli import application
from app.cli.exits import BAD_USAGE, PASSED

MODEL = Path(__file__).parents[4] / "app/bundled/stories-24l"


def sample(doc: int, sums: tuple[float, ...], right: bool, **more: Any) -> dict[str, Any]:
    """A question as `lm_eval --log_samples` writes it."""
    options = [" happy", " very sad and tired"]
    return {
        "doc_id": doc, "doc": {}, "target": "0", "filter": "none", "metrics": ["acc"], "acc": float(right),
        "arguments": {f"gen_args_{i}": {"arg_0": "Tim was", "arg_1": option} for i, option in enumerate(options)},
        "resps": [[[str(value), "False"]] for value in sums],
        "doc_hash": f"doc{doc}", "prompt_hash": "p", **more,
    }  # fmt: skip


def samples_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = application.run(["stability", *map(str, arguments)])
    out = capsys.readouterr()
    return code, out.out, " ".join(out.err.split())


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    dense = samples_file(
        tmp_path / "samples_moods_2026-11-24T07-00-00.000000.jsonl",
        [sample(0, (-2.0, -16.0), True), sample(1, (-3.0, -12.0), True)],
    )
    pruned = samples_file(
        tmp_path / "samples_moods_2026-11-24T08-00-00.000000.jsonl",
        [sample(0, (-4.0, -3.0), False), sample(1, (-3.0, -12.0), True)],
    )
    return dense, pruned


def test_sample_files_are_normalised_by_the_tokenizers_counts(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    # " happy" is one token and " very sad and tired" four: mean NLLs (2, 4) and (3, 3), deviations 1 and 0.
    code, out, _ = run(capsys, *files, "--tokenizer", MODEL, "--json")
    found = json.loads(out)
    assert code == PASSED
    assert found["over"] == "option"
    assert list(found["tasks"]) == ["moods"]
    assert found["tasks"]["moods"]["stability"]["value"] == pytest.approx(1 / (1 + math.e), abs=1e-12)
    assert found["tasks"]["moods"]["flips"]["right_to_wrong"] == 1
    assert found["mean"]["retained_accuracy"]["value"] == 0.5


def test_counts_in_the_file_need_no_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [sample(0, (-2.0, -16.0), True, token_counts=[1, 4]), sample(1, (-3.0, -12.0), True, token_counts=[1, 4])]
    dense = samples_file(tmp_path / "moods.dense.jsonl", rows)
    code, out, _ = run(capsys, dense, dense)
    assert code == PASSED
    assert "moods" in out
    assert "1.000" in out


def test_every_heading_is_there_at_80_columns(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run(capsys, *files, "--tokenizer", MODEL)
    assert "…" not in out
    assert {"task", "stability", "dense", "pruned", "retained", "right→", "wrong→", "KL"} <= set(out.split())
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("label", [0, "A"])
def test_opencompass_folders_need_nothing_else(
    label: int | str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = 1 if label == 0 else "B"

    def folder(name: str, predictions: list[int | str]) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        ppl = [(1.0, 3.0), (2.0, 2.0)]  # mean NLLs, not their exponentials
        rows = {
            str(i): {
                "prediction": prediction, "gold": str(label),
                f"label: {label}": {"PPL": ppl[i][0]}, f"label: {other}": {"PPL": ppl[i][1]},
            }
            for i, prediction in enumerate(predictions)
        }  # fmt: skip
        (directory / "piqa.json").write_text(json.dumps(rows))
        return directory

    code, out, _ = run(capsys, folder("dense", [label, label]), folder("pruned", [other, label]), "--json")
    found = json.loads(out)
    assert code == PASSED
    assert found["over"] == "prompt"
    assert found["tasks"]["piqa"]["accuracy"]["pruned"] == 0.5
    assert found["tasks"]["piqa"]["stability"]["value"] == pytest.approx(1 / (1 + math.e), abs=1e-12)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([sample(0, (-2.0, -16.0), True)], "questions are in one file only"),
        ([sample(0, (-2.0, -16.0), True, doc_hash="x"), sample(1, (-3.0, -1.0), True)], "question 0 is not the same"),
        ([{"text": "hello"}], "it has no field 'doc_id'; found: text. Give a file that lm_eval --log_samples wrote."),
        ([{"doc_id": 0, "metrics": ["exact_match"]}], "has no accuracy `acc` (metrics: exact_match)"),
        ([sample(0, (math.nan, -16.0), True)], "log-likelihood of question 0 is not a finite number"),
        ([sample(0, (-1.0, -16.0), True)] * 2, "question 0 is there twice"),
        ([], "has no samples"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    rows: list[dict[str, Any]], said: str, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, files[0], samples_file(tmp_path / "other.jsonl", rows), "--tokenizer", MODEL)
    assert code == BAD_USAGE
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_what_is_missing_is_named(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--tokenizer DIR" in run(capsys, *files)[2]
    assert "no tokenizer.json in" in run(capsys, *files, "--tokenizer", tmp_path)[2]
    assert "no file or folder" in run(capsys, files[0], tmp_path / "absent.jsonl")[2]
    assert "two sample files" in run(capsys, files[0], tmp_path)[2]
    (empty := tmp_path / "empty").mkdir()
    code, _, err = run(capsys, empty, empty)
    assert code == BAD_USAGE
    assert "no TASK.json" in err


def test_broken_lines_are_one_sentence(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (broken := tmp_path / "broken.jsonl").write_text("{not json}\n")
    code, _, err = run(capsys, files[0], broken, "--tokenizer", MODEL)
    assert code == BAD_USAGE
    assert "not JSON lines" in err
