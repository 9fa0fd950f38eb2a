"""What the ledger promises: done means done with these inputs, byte for byte."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.ledger import LEDGER_FILE, Ledger

CONTENTS = st.dictionaries(st.sampled_from(["a.json", "b.bin", "dir/c", "dir/d"]), st.binary(max_size=20), min_size=1)


def write(root: Path, contents: dict[str, bytes]) -> None:
    for name, data in contents.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)


@given(CONTENTS, st.text(max_size=8))
def test_a_recorded_stage_is_done_for_a_new_reader_too(contents: dict[str, bytes], inputs: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write(root, contents)
        entry = Ledger(root).record("score", inputs, ["a.json", "b.bin", "dir"], 1.5)
        assert set(entry.outputs) == set(contents)
        again = Ledger(root)
        assert again.is_done("score", inputs)
        assert again.entry("score") == entry
        assert not again.is_done("score", inputs + "x")
        assert not again.is_done("train", inputs)


@given(CONTENTS, st.data())
def test_any_change_to_any_output_undoes_the_stage(contents: dict[str, bytes], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        write(root, contents)
        ledger = Ledger(root)
        ledger.record("score", "in", ["a.json", "b.bin", "dir"], 0.0)
        name = data.draw(st.sampled_from(sorted(contents)))
        other = data.draw(st.none() | st.binary(max_size=20).filter(lambda new: new != contents[name]))
        if other is None:
            (root / name).unlink()
        else:
            (root / name).write_bytes(other)
        assert not ledger.is_done("score", "in")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stages": [{"stage": 1}]}', '{"stages": [3]}', '{"stages": 7}'])
def test_an_unreadable_ledger_is_an_empty_one(tmp_path: Path, content: str) -> None:
    (tmp_path / LEDGER_FILE).write_text(content)
    assert Ledger(tmp_path).entry("score") is None


def test_stages_keep_their_entries_side_by_side(tmp_path: Path) -> None:
    write(tmp_path, {"a.json": b"1", "b.bin": b"2"})
    ledger = Ledger(tmp_path)
    ledger.record("score", "x", ["a.json"], 0.0)
    ledger.record("train", "y", ["b.bin"], 0.0)
    ledger.record("score", "z", ["a.json"], 0.0)
    stages = json.loads((tmp_path / LEDGER_FILE).read_text())["stages"]
    assert sorted(stage["stage"] for stage in stages) == ["score", "train"]
    assert Ledger(tmp_path).is_done("score", "z")
