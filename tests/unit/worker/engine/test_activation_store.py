"""What the store of training pairs promises."""

from __future__ import annotations

import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import Tensor

from worker.engine import activation_store
from worker.engine.activation_store import ActivationStore
from worker.engine.decoder import Decoder
from worker.engine.errors import EngineError


def test_pairs_are_the_states_at_both_ends_of_the_window(decoder: Decoder, ids: Tensor, tmp_path: Path) -> None:
    store = ActivationStore.capture(decoder, ids, 1, 4, tmp_path, batch_size=2)
    states = decoder.hidden_states(ids)
    before, after = store.batch([2, 0])
    torch.testing.assert_close(before, states[1][[2, 0]])
    torch.testing.assert_close(after, states[4][[2, 0]])
    assert len(store) == 3
    assert store.length == 12


def test_a_window_at_the_end_is_stored_before_the_final_norm(llama: Decoder, ids: Tensor, tmp_path: Path) -> None:
    store = ActivationStore.capture(llama, ids, 3, 5, tmp_path, batch_size=3)
    torch.testing.assert_close(store.batch([0, 1, 2])[1], llama.hidden_states(ids)[5])


def test_shards_hold_the_models_own_dtype_and_nothing_else(
    llama: Decoder, ids: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama.stored_dtype = torch.bfloat16
    row = 2 * 12 * 16 * 2
    monkeypatch.setattr(activation_store, "SHARD_BYTES", 2 * row)
    store = ActivationStore.capture(llama, ids, 0, 2, tmp_path, batch_size=2)
    assert sorted(path.stat().st_size for path in tmp_path.iterdir()) == [row, 2 * row]
    expected = llama.hidden_states(ids)[2].bfloat16().float()
    assert torch.equal(store.batch([0, 1, 2])[1], expected)


def test_a_capture_with_another_batch_size_leaves_nothing_of_the_one_before(
    llama: Decoder, ids: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activation_store, "SHARD_BYTES", 1)
    ActivationStore.capture(llama, ids, 1, 4, tmp_path, batch_size=1)
    assert len(list(tmp_path.iterdir())) == 3
    store = ActivationStore.capture(llama, ids, 1, 4, tmp_path, batch_size=2)
    assert len(list(tmp_path.iterdir())) == 2
    torch.testing.assert_close(store.batch([0, 1, 2])[0], llama.hidden_states(ids)[1])


def test_however_much_is_stored_it_lies_in_few_files(
    llama: Decoder, ids: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activation_store, "SHARD_BYTES", 1)
    monkeypatch.setattr(activation_store, "_MOST_SHARDS", 2)
    store = ActivationStore.capture(llama, ids, 1, 4, tmp_path, batch_size=1)
    assert len(list(tmp_path.iterdir())) == 2
    torch.testing.assert_close(store.batch([2])[1], llama.hidden_states(ids)[4][[2]])


def test_a_disk_that_is_too_small_is_refused_before_a_byte_is_written(
    llama: Decoder, ids: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10_000, 9_000, 1_000))
    with pytest.raises(EngineError, match=r"4608 bytes are needed in .* and 1000 are free") as caught:
        ActivationStore.capture(llama, ids, 1, 4, tmp_path, batch_size=2)
    assert caught.value.code == "disk_full"
    assert caught.value.permanent
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_is_the_same_error(llama: Decoder, ids: Tensor, tmp_path: Path) -> None:
    (tmp_path / "activations-00000.bin").symlink_to("/dev/full")
    with pytest.raises(EngineError, match="4608 bytes are needed") as caught:
        ActivationStore.capture(llama, ids, 1, 4, tmp_path, batch_size=2)
    assert caught.value.code == "disk_full"


def test_a_state_that_is_not_finite_stops_the_capture(llama: Decoder, ids: Tensor, tmp_path: Path) -> None:
    with torch.no_grad():
        llama.layers[1].get_parameter("mlp.down_proj.weight").fill_(float("inf"))
    with pytest.raises(EngineError, match="before layer 3"):
        ActivationStore.capture(llama, ids, 0, 3, tmp_path, batch_size=2)


def test_what_was_read_stays_in_the_page_cache_and_not_in_this_process(
    llama: Decoder, ids: Tensor, tmp_path: Path
) -> None:
    stored = ActivationStore.capture(llama, ids.repeat(4000, 1), 1, 4, tmp_path, batch_size=3000)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    indices = list(range(len(stored)))

    def mapped() -> int:
        # Bytes of the store's mapped files that are in this process's memory, proc(5).
        areas = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
        ours = (area for area in areas if str(tmp_path) in area)
        return sum(int(size) << 10 for area in ours for size in re.findall(r"^Rss: +(\d+) kB", area, re.MULTILINE))

    for begin in range(0, len(indices), 500):
        stored.batch(indices[begin : begin + 500])
    assert size > 16 << 20
    assert mapped() < size / 8
