"""Writing a safetensors file out of pieces of others: runs of unchanged bytes are copied inside the kernel.

No tensor is built for what stays as it is. Only tensors whose dtype changes, and the few that are new, pass through
memory, the former in chunks; anonymous memory stays far below one tensor of a large model.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import torch

from app.core.safetensors_file import (
    DTYPE_BITS,
    Checkpoint,
    TensorEntry,
    encode_header,
    is_buffer,
    tensor_bytes,
)
from worker.engine.errors import EngineError

TORCH_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in TORCH_DTYPES.items()}
CONVERTIBLE = frozenset({"F64", "F32", "F16", "BF16"})
"""Only plain floating point numbers follow output.dtype; integers and 8-bit formats mean something else."""

# transformers writes this and readers such as safetensors' own expect it; nothing else may make the bytes differ.
METADATA: Mapping[str, str] = {"format": "pt"}

# What is converted at a time: with its copies in both dtypes, times the files at once, a few tens of megabytes.
_CHUNK_BYTES = 1 << 20
# What one system call copies: progress is told in between.
_COPY_CALL_BYTES = 64 << 20
_FILES_AT_ONCE = 4
# Whole tensors pass through memory one at a time, however many files are being written.
_ONE_IN_MEMORY = Lock()
_NO_KERNEL_COPY = frozenset({errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM})

Progress = Callable[[int], None]
"""Told the number of bytes written since the last call."""


def usual_dtype(checkpoint: Checkpoint) -> str | None:
    """Return the floating point dtype that most bytes of the weights have; None where no weight is one."""
    sizes: Counter[str] = Counter()
    for name, entry in checkpoint.entries():
        if entry.dtype in CONVERTIBLE and not is_buffer(name):
            sizes[entry.dtype] += entry.nbytes
    return sizes.most_common(1)[0][0] if sizes else None


@dataclass(frozen=True)
class Stored:
    """A tensor that lies in a source file: `offset` counts bytes from the file's beginning."""

    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Computed:
    """A tensor that is made when its turn to be written has come, so that no two of them are in memory."""

    shape: tuple[int, ...]
    make: Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Piece:
    """One tensor of the file to be written, with the dtype that it shall have there."""

    name: str
    source: Stored | Computed | torch.Tensor
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(self.source.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the file to be written."""
        return tensor_bytes(self.dtype, self.shape)


def layout(pieces: Sequence[Piece]) -> tuple[list[Piece], bytes]:
    """Return the pieces in the order of their data, and the file's header.

    Wide dtypes come first, so that every tensor starts at a multiple of its element's width (readers view the mapped
    file in place); among equals the given order stays, which keeps neighbours together and copies long.
    """
    ordered = sorted(pieces, key=lambda piece: -DTYPE_BITS[piece.dtype])
    entries: dict[str, TensorEntry] = {}
    position = 0
    for piece in ordered:
        if piece.name in entries:
            raise EngineError("corrupt_model", f"two tensors would be called {piece.name}")
        entries[piece.name] = TensorEntry(piece.dtype, piece.shape, position, position + piece.nbytes)
        position += piece.nbytes
    return ordered, encode_header(entries, METADATA)


def stored_in(checkpoint: Checkpoint, name: str) -> Stored:
    """Return where a tensor of a checkpoint lies.

    Raises:
        EngineError: `corrupt_model` where it is not there.
    """
    if name not in checkpoint.tensor_file:
        raise EngineError("corrupt_model", f"the weights lack {name}; fetch the model again")
    file = next(file for file in checkpoint.files if file.name == checkpoint.tensor_file[name])
    entry = file.header.tensors[name]
    return Stored(file.path, file.header.data_offset + entry.start, entry.dtype, entry.shape)


def read_tensor(stored: Stored) -> torch.Tensor:
    """Return a stored tensor in memory.

    Raises EngineError `corrupt_model` where the file is shorter than its header said.
    """
    raw = bytearray(tensor_bytes(stored.dtype, stored.shape))
    with stored.path.open("rb", buffering=0) as file:
        view = memoryview(raw)
        while view:
            count = os.preadv(file.fileno(), [view], stored.offset + len(raw) - len(view))
            if count == 0:
                raise EngineError("corrupt_model", f"{stored.path.name} became shorter while it was read")
            view = view[count:]
    return torch.frombuffer(raw, dtype=TORCH_DTYPES[stored.dtype]).view(stored.shape)


def write_files(files: Mapping[Path, Sequence[Piece]], progress: Progress) -> None:
    """Write a safetensors file of each path's pieces, several at a time, without waiting for the disk.

    Raises OSError (ENOSPC on a full disk) and EngineError: `corrupt_model` where a source file is shorter than its
    header said, `dtype_overflow` where a weight does not fit the new dtype; no file is written to any more by then.
    """
    turn = Lock()

    def told(count: int) -> None:
        with turn:
            progress(count)

    # What the kernel copies takes one core to copy, and each file has a lock of its own there.
    with ThreadPoolExecutor(min(_FILES_AT_ONCE, os.cpu_count() or 1), thread_name_prefix="assembly") as writers:
        pending = [writers.submit(_write_file, path, pieces, told) for path, pieces in files.items()]
        try:
            for written in as_completed(pending):
                written.result()
        finally:
            for unwritten in pending:
                unwritten.cancel()


def _write_file(path: Path, pieces: Sequence[Piece], progress: Progress) -> None:
    ordered, header = layout(pieces)
    with path.open("wb", buffering=0) as file:
        target = file.fileno()
        _write_all(target, header)
        for run in _runs(ordered):
            first = run[0]
            if isinstance(first.source, Stored) and first.source.dtype == first.dtype:
                _copy_run(first.source, target, sum(piece.nbytes for piece in run), progress)
            elif isinstance(first.source, Stored):
                _convert(first.name, first.source, first.dtype, target, progress)
            else:
                with _ONE_IN_MEMORY:
                    _write_tensor(first.name, first.source, first.dtype, target, progress)


def _runs(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Group neighbours that lie one behind the other, unchanged, in one source file too."""
    run: list[Piece] = []
    for piece in pieces:
        if run and not _follows(run[-1], piece):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _follows(before: Piece, piece: Piece) -> bool:
    a, b = before.source, piece.source
    return (
        isinstance(a, Stored)
        and isinstance(b, Stored)
        and a.dtype == before.dtype
        and b.dtype == piece.dtype
        and a.path == b.path
        and a.offset + before.nbytes == b.offset
    )


def _copy_run(source: Stored, target: int, count: int, progress: Progress) -> None:
    with source.path.open("rb", buffering=0) as file:
        offset = source.offset
        while count:
            copied = _copy_some(file.fileno(), offset, target, min(count, _COPY_CALL_BYTES))
            if copied == 0:
                raise EngineError("corrupt_model", f"{source.path.name} became shorter while it was read")
            offset += copied
            count -= copied
            progress(copied)


def _copy_some(source: int, offset: int, target: int, count: int) -> int:
    """Copy up to `count` bytes to the target's end: in the kernel where the file systems can, else through a buffer."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, count, offset_src=offset)
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY:
                raise
    if hasattr(os, "sendfile"):
        try:
            return os.sendfile(target, source, offset, count)
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY:
                raise
    chunk = os.pread(source, min(count, _CHUNK_BYTES), offset)
    _write_all(target, chunk)
    return len(chunk)


def _convert(name: str, source: Stored, dtype: str, target: int, progress: Progress) -> None:
    width = DTYPE_BITS[source.dtype] // 8
    remaining = tensor_bytes(source.dtype, source.shape)
    offset = source.offset
    with source.path.open("rb", buffering=0) as file:
        while remaining:
            # A bytearray, so that torch may take the buffer as it is (it warns about read-only ones).
            chunk = bytearray(os.pread(file.fileno(), min(remaining, _CHUNK_BYTES // width * width), offset))
            if not chunk or len(chunk) % width:
                raise EngineError("corrupt_model", f"{source.path.name} became shorter while it was read")
            values = torch.frombuffer(chunk, dtype=TORCH_DTYPES[source.dtype])
            _write_all(target, _bytes_of(name, values, dtype))
            offset += len(chunk)
            remaining -= len(chunk)
            progress(len(chunk))


def _write_tensor(name: str, source: Computed | torch.Tensor, dtype: str, target: int, progress: Progress) -> None:
    tensor = source.make() if isinstance(source, Computed) else source
    raw = _bytes_of(name, tensor.detach().cpu().contiguous(), dtype)
    _write_all(target, raw)
    progress(len(raw))


def _bytes_of(name: str, values: torch.Tensor, dtype: str) -> memoryview:
    converted = values.to(TORCH_DTYPES[dtype])
    if converted.is_floating_point() and not torch.isfinite(converted).all() and torch.isfinite(values).all():
        raise EngineError(
            "dtype_overflow",
            f"{name} holds values too large for {TORCH_DTYPES[dtype]}; choose bfloat16 or float32 as output.dtype",
        )
    raw: memoryview = converted.reshape(-1).view(torch.uint8).numpy().data
    return raw


def _write_all(target: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
