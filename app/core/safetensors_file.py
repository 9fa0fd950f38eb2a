"""Headers of safetensors files: read, validated and related to each other, without touching the tensors' bytes.

Format: https://github.com/huggingface/safetensors#format - eight bytes with the header's length (little endian), the
header (JSON: name -> dtype, shape and the half-open byte range in the data that follows), then the data. Everything is
checked against the file's real length before anyone relies on it, so that a truncated download or a forged header is
found here and named, and not later as a crash in the middle of a job.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack"})
"""Suffixes of other forms of the weights; the pickled ones run code when they are opened."""

# The reference implementation's own limit (safetensors 0.5, `MAX_HEADER_SIZE`).
MAX_HEADER_BYTES = 100_000_000
MAX_INDEX_BYTES = 100_000_000
_LENGTH_PREFIX_BYTES = 8

# Width of one element in bits; the sub-byte types of the format are packed, so a tensor's bytes are bits / 8.
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "F8_E4M3": 8, "F8_E5M2": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip

# Buffers that old exports stored beside the weights: tables of rotary frequencies, GPT-NeoX' causal mask. Current
# libraries compute them and ignore the stored ones, so they are no parameters.
_BUFFER = re.compile(
    r"(^|\.)(rotary_emb\.(inv_freq|original_inv_freq|cos_cached|sin_cached)|attn\.(bias|masked_bias)|attention\.(bias|masked_bias))$"
)


class CorruptSafetensors(Exception):  # noqa: N818 - named for what it says about the file
    """A safetensors file, or the index over several, contradicts itself or its own length.

    `file` is the name of the offending file, `reason` a sentence without it.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a header: `start` and `end` are byte offsets from the beginning of the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes that the tensor takes in the file."""
        return self.end - self.start

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar, 0 where a dimension is 0."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """A validated header. `tensors` is in the order of the data, `data_offset` counts from the file's beginning."""

    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    data_offset: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """One shard: its plain name, where it lies, and its header."""

    name: str
    path: Path
    header: Header


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The weights of a model directory: its shards in name order, and which of them holds each tensor."""

    directory: Path
    files: tuple[CheckpointFile, ...]
    tensor_file: Mapping[str, str]
    sharded: bool

    def entries(self) -> Iterator[tuple[str, TensorEntry]]:
        """Every stored tensor once, shard by shard in the order of the data."""
        for file in self.files:
            yield from file.header.tensors.items()

    def entry(self, name: str) -> TensorEntry:
        """The entry of tensor `name`; KeyError where the checkpoint has none."""
        wanted = self.tensor_file[name]
        return next(file for file in self.files if file.name == wanted).header.tensors[name]

    @property
    def nbytes(self) -> int:
        """Bytes of all shards, headers included."""
        return sum(file.header.file_bytes for file in self.files)


def read_header(path: Path) -> Header:
    """Read and validate the header of one safetensors file; its tensors' bytes are not read.

    Raises CorruptSafetensors naming the file as `parse_header` does; OSError where the file cannot be read at all.
    """
    with path.open("rb") as file:
        return parse_header(path.name, file)


def parse_header(name: str, file: BinaryIO) -> Header:
    """Read and validate the header at the beginning of a seekable safetensors file that is called `name`.

    Raises CorruptSafetensors naming the file where the header is too long or not the JSON that the format asks for,
    where a byte range does not match dtype and shape, where ranges overlap or leave a gap, or where the file is shorter
    or longer than the header says.
    """
    file_bytes = file.seek(0, 2)
    file.seek(0)
    prefix = file.read(_LENGTH_PREFIX_BYTES)
    if len(prefix) < _LENGTH_PREFIX_BYTES:
        raise CorruptSafetensors(name, f"truncated: {file_bytes} bytes, shorter than the header's length field")
    (length,) = struct.unpack("<Q", prefix)
    if length > MAX_HEADER_BYTES:
        raise CorruptSafetensors(name, f"the header claims {length} bytes; at most {MAX_HEADER_BYTES} are allowed")
    raw = file.read(length)
    if len(raw) < length:
        raise CorruptSafetensors(name, f"truncated: the header needs {length} bytes, {len(raw)} are there")
    tensors, metadata = _parse_header(name, raw)
    data_offset = _LENGTH_PREFIX_BYTES + length
    _check_layout(name, tensors, file_bytes - data_offset)
    return Header(tensors, metadata, data_offset, file_bytes)


def read_checkpoint(directory: Path) -> Checkpoint:
    """Read the headers of `directory`'s weights: `model.safetensors`, else the shards that the index names.

    A single file wins over an index, as in transformers. Raises CorruptSafetensors where a header is bad, a shard is
    missing or named outside the directory, or index and shards disagree; FileNotFoundError where there are no
    safetensors weights at all.
    """
    single = directory / SINGLE_FILE
    if single.is_file():
        header = read_header(single)
        tensor_file = dict.fromkeys(header.tensors, SINGLE_FILE)
        return Checkpoint(directory, (CheckpointFile(SINGLE_FILE, single, header),), tensor_file, sharded=False)
    index = directory / INDEX_FILE
    if not index.is_file():
        raise FileNotFoundError(
            f"{directory} holds neither {SINGLE_FILE} nor {INDEX_FILE}; save the model with safe_serialization first"
        )
    weight_map = _read_weight_map(index)
    files = []
    for name in sorted(set(weight_map.values())):
        path = directory / name
        if not path.is_file():
            raise CorruptSafetensors(INDEX_FILE, f"names the shard {name}, which is not there")
        files.append(CheckpointFile(name, path, read_header(path)))
    _check_weight_map(weight_map, files)
    return Checkpoint(directory, tuple(files), weight_map, sharded=True)


def is_buffer(name: str) -> bool:
    """Whether `name` is a stored table that libraries recompute (rotary frequencies, causal masks): no parameter."""
    return _BUFFER.search(name) is not None


def parameter_count(checkpoint: Checkpoint, *, tied: Collection[str] = ()) -> int:
    """Parameters of a checkpoint: elements of its stored tensors, without buffers.

    A tensor that is tied and left out of the file counts once by itself; name in `tied` the copies that a checkpoint
    stores although they are tied to another tensor (`lm_head.weight`).
    """
    return sum(entry.elements for name, entry in checkpoint.entries() if name not in tied and not is_buffer(name))


def encode_header(tensors: Mapping[str, TensorEntry], metadata: Mapping[str, str]) -> bytes:
    """The bytes in front of the data: length field and JSON, padded with spaces.

    The padding makes the data start at a multiple of 8. `tensors` must be in the order of the data and without gaps,
    as `read_header` demands of every file.
    """
    document: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, entry in tensors.items():
        document[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.start, entry.end],
        }
    raw = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw


def tensor_bytes(dtype: str, shape: Collection[int]) -> int:
    """Bytes of a tensor of `dtype` and `shape`; ValueError for an unknown dtype or a packed tensor of broken bytes."""
    bits = DTYPE_BITS.get(dtype)
    if bits is None:
        raise ValueError(f"unknown dtype {dtype!r}")
    total = math.prod(shape) * bits
    if total % 8:
        raise ValueError(f"{dtype} of shape {list(shape)} does not fill whole bytes")
    return total // 8


def _parse_header(file: str, raw: bytes) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    document = _parse_json_object(file, raw, what="header")
    metadata = document.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CorruptSafetensors(file, "__metadata__ must map names to strings")
    entries = {name: _parse_entry(file, name, value) for name, value in document.items()}
    return dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end, item[0]))), metadata


def _parse_json_object(file: str, raw: bytes, *, what: str) -> dict[str, Any]:
    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = dict(pairs)
        if len(seen) != len(pairs):
            raise ValueError("a name occurs twice")
        return seen

    try:
        document = json.loads(raw.decode("utf-8"), object_pairs_hook=refuse_duplicates)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise CorruptSafetensors(file, f"the {what} is not valid JSON ({error})") from None
    if not isinstance(document, dict):
        raise CorruptSafetensors(file, f"the {what} must be a JSON object")
    return document


def _parse_entry(file: str, name: str, value: Any) -> TensorEntry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise CorruptSafetensors(file, f"tensor {name!r} must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise CorruptSafetensors(file, f"tensor {name!r} has the unknown dtype {dtype!r}")
    if not _is_list_of_sizes(shape):
        raise CorruptSafetensors(file, f"tensor {name!r} has a shape that is no list of sizes")
    if not _is_list_of_sizes(offsets) or len(offsets) != 2:
        raise CorruptSafetensors(file, f"tensor {name!r} has data_offsets that are no pair of offsets")
    start, end = offsets
    try:
        expected = tensor_bytes(dtype, shape)
    except ValueError as error:
        raise CorruptSafetensors(file, f"tensor {name!r}: {error}") from None
    if end - start != expected:
        raise CorruptSafetensors(
            file, f"tensor {name!r}: {dtype} of shape {shape} takes {expected} bytes, its offsets span {end - start}"
        )
    return TensorEntry(dtype, tuple(shape), start, end)


def _is_list_of_sizes(value: Any) -> bool:
    # 2**63 keeps every product a plain number; a bool is an int to Python and none to the format.
    return isinstance(value, list) and all(
        isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**63 for size in value
    )


def _check_layout(file: str, tensors: Mapping[str, TensorEntry], data_bytes: int) -> None:
    position = 0
    for name, entry in tensors.items():
        if entry.start < position:
            raise CorruptSafetensors(file, f"tensor {name!r} overlaps the one before it")
        if entry.start > position:
            raise CorruptSafetensors(file, f"a gap of {entry.start - position} bytes lies before tensor {name!r}")
        position = entry.end
    if data_bytes < position:
        raise CorruptSafetensors(file, f"truncated: its tensors need {position} bytes, {data_bytes} are there")
    if data_bytes > position:
        raise CorruptSafetensors(file, f"{data_bytes - position} bytes follow the last tensor")


def _read_weight_map(index: Path) -> dict[str, str]:
    if index.stat().st_size > MAX_INDEX_BYTES:
        raise CorruptSafetensors(INDEX_FILE, f"larger than {MAX_INDEX_BYTES} bytes")
    weight_map = _parse_json_object(INDEX_FILE, index.read_bytes(), what="index").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CorruptSafetensors(INDEX_FILE, "has no weight_map")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not _is_plain_shard_name(shard):
            raise CorruptSafetensors(
                INDEX_FILE, f"maps {tensor!r} to {shard!r}, which is no plain .safetensors name in the same directory"
            )
    return weight_map


def _is_plain_shard_name(name: str) -> bool:
    return (
        name.endswith(".safetensors")
        and not name.startswith(".")
        and not any(character in "/\\" or ord(character) < 32 for character in name)
    )


def _check_weight_map(weight_map: Mapping[str, str], files: Collection[CheckpointFile]) -> None:
    stored: dict[str, str] = {}
    for file in files:
        for tensor in file.header.tensors:
            if tensor in stored:
                raise CorruptSafetensors(file.name, f"holds tensor {tensor!r}, which {stored[tensor]} holds as well")
            stored[tensor] = file.name
            if weight_map.get(tensor) != file.name:
                raise CorruptSafetensors(
                    INDEX_FILE, f"maps {tensor!r} to {weight_map.get(tensor)}, but {file.name} holds it"
                )
    for tensor, shard in weight_map.items():
        if tensor not in stored:
            raise CorruptSafetensors(shard, f"lacks tensor {tensor!r}, which {INDEX_FILE} says it holds")
