"""What a reader may rely on once a safetensors header has been accepted."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from app.core.safetensors_file import (
    INDEX_FILE,
    SINGLE_FILE,
    CorruptSafetensors,
    TensorEntry,
    encode_header,
    parameter_count,
    read_checkpoint,
    read_header,
    tensor_bytes,
)


def write_raw(path: Path, header: Any, data: bytes) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def write_sharded(directory: Path) -> dict[str, str]:
    save_file({"a": np.zeros((2, 3), np.float32)}, directory / "model-00001-of-00002.safetensors")
    save_file({"b": np.zeros((4,), np.float16)}, directory / "model-00002-of-00002.safetensors")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (directory / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def test_a_file_of_the_reference_writer_is_read_as_it_was_written(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "s": np.array(7, np.int64),
        "e": np.zeros((0, 4)),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "x.safetensors")
    assert {name: e.shape for name, e in header.tensors.items()} == {"w": (2, 3), "s": (), "e": (0, 4)}
    assert header.metadata == {"format": "pt"}
    w = header.tensors["w"]
    raw = (tmp_path / "x.safetensors").read_bytes()[header.data_offset + w.start : header.data_offset + w.end]
    assert raw == tensors["w"].tobytes()


def test_the_reference_reader_accepts_an_encoded_header(tmp_path: Path) -> None:
    data = np.arange(4, dtype=np.float32)
    header = encode_header({"ä": TensorEntry("F32", (2, 2), 0, 16)}, {"format": "pt"})
    assert len(header) % 8 == 0
    (tmp_path / "x.safetensors").write_bytes(header + data.tobytes())
    assert load_file(tmp_path / "x.safetensors")["ä"].tolist() == [[0.0, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        (b"{", b"", "not valid JSON"),
        (b"\xff\xfe", b"", "not valid JSON"),
        (b"[" * 100_000, b"", "not valid JSON"),
        (b"[]", b"", "JSON object"),
        (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":1}', b"x", "twice"),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
        ({"a": 3}, b"", "exactly dtype"),
        ({"a": {"dtype": "U8", "shape": [1]}}, b"x", "exactly dtype"),
        ({"a": entry("F99", [1], 0, 1)}, b"x", "unknown dtype"),
        ({"a": entry("U8", [-1], 0, 1)}, b"x", "no list of sizes"),
        ({"a": entry("U8", [True], 0, 1)}, b"x", "no list of sizes"),
        ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0]}}, b"x", "no pair"),
        ({"a": entry("U8", [1], 1, 0)}, b"x", "takes 1 bytes"),
        ({"a": entry("F32", [2], 0, 4)}, b"xxxx", "takes 8 bytes"),
        ({"a": entry("F4", [3], 0, 1)}, b"x", "whole bytes"),
        ({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"xxx", "overlaps"),
        ({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 2, 3)}, b"xxx", "gap of 1"),
        ({"a": entry("U8", [4], 0, 4)}, b"xxx", "truncated"),
        ({"a": entry("U8", [1], 0, 1)}, b"xx", "follow the last tensor"),
        ({"a": entry("U8", [2**62, 2**62], 0, 4)}, b"xxxx", "takes"),
    ],
)
def test_a_header_that_lies_is_refused_with_the_files_name(
    tmp_path: Path, header: Any, data: bytes, reason: str
) -> None:
    path = write_raw(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(CorruptSafetensors, match=reason) as caught:
        read_header(path)
    assert caught.value.file == "bad.safetensors"


@pytest.mark.parametrize("kept", [0, 7, 8, 20])
def test_a_truncated_header_is_named_as_truncated(tmp_path: Path, kept: int) -> None:
    path = write_raw(tmp_path / "cut.safetensors", {"a": entry("U8", [1], 0, 1)}, b"x")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptSafetensors, match="truncated"):
        read_header(path)


def test_a_huge_header_length_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    with pytest.raises(CorruptSafetensors, match="at most"):
        read_header(tmp_path / "x.safetensors")


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_bytes_is_refused_or_leaves_ranges_inside_the_file(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "fuzz.safetensors"
    save_file({"a": np.zeros((3, 2), np.float32), "b": np.zeros(5, np.int8)}, path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(raw) - 1))
        raw[position] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(0, len(raw))) or len(raw) :]
    path.write_bytes(raw)
    try:
        header = read_header(path)
    except CorruptSafetensors:
        return
    position = 0
    for tensor in header.tensors.values():
        assert tensor.start == position
        assert tensor.nbytes == tensor_bytes(tensor.dtype, tensor.shape)
        position = tensor.end
    assert header.data_offset + position == len(raw)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "a", "b"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_document_is_accepted_or_refused_but_never_crashes(tmp_path: Path, document: Any) -> None:
    path = write_raw(tmp_path / "fuzz.safetensors", document, b"")
    try:
        header = read_header(path)
    except CorruptSafetensors:
        return
    assert all(tensor.nbytes == 0 for tensor in header.tensors.values())


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    weight_map = write_sharded(tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.sharded
    assert checkpoint.tensor_file == weight_map
    assert parameter_count(checkpoint) == 10
    assert checkpoint.entry("b").dtype == "F16"
    assert checkpoint.nbytes == sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/etc/x.safetensors", "a/../x.safetensors", "a\\x.safetensors", "x\0.safetensors", "x.bin", 3],
)
def test_a_shard_name_may_not_leave_the_directory(tmp_path: Path, name: Any) -> None:
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CorruptSafetensors, match=r"no plain \.safetensors name"):
        read_checkpoint(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CorruptSafetensors, match=r"model-00002-of-00002\.safetensors, which is not there"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"b": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"}, "but"),
        ({"c": "model-00001-of-00002.safetensors"}, "lacks tensor 'c'"),
        ({"a": "model-00002-of-00002.safetensors"}, "which is not there|but|lacks"),
    ],
)
def test_an_index_that_disagrees_with_its_shards_is_refused(
    tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    weight_map = write_sharded(tmp_path)
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {**weight_map, **change}}))
    with pytest.raises(CorruptSafetensors, match=reason):
        read_checkpoint(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    weight_map = write_sharded(tmp_path)
    both: dict[str, Any] = {"b": np.zeros((4,), np.float16), "a": np.zeros((2, 3), np.float32)}
    save_file(both, tmp_path / "model-00002-of-00002.safetensors")
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CorruptSafetensors, match="as well"):
        read_checkpoint(tmp_path)


def test_a_directory_without_safetensors_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="safe_serialization"):
        read_checkpoint(tmp_path)


def test_recomputed_buffers_and_named_copies_are_no_parameters(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {
        "gpt_neox.layers.0.attention.bias": np.zeros((1, 1, 8, 8), np.bool_),
        "gpt_neox.layers.0.attention.masked_bias": np.array(0, np.float32),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": np.zeros(4, np.float32),
        "gpt_neox.layers.0.attention.dense.bias": np.zeros(8, np.float32),
        "gpt_neox.embed_in.weight": np.zeros((3, 8), np.float32),
        "lm_head.weight": np.zeros((3, 8), np.float32),
    }
    save_file(tensors, tmp_path / SINGLE_FILE)
    checkpoint = read_checkpoint(tmp_path)
    assert parameter_count(checkpoint) == 8 + 24 + 24
    assert parameter_count(checkpoint, tied={"lm_head.weight"}) == 8 + 24
