"""The assemble stage: the pruned checkpoint is cut out of the dense one, file by file, without building a model.

Kept layers are renumbered by writing new headers, their bytes are copied; the replacement goes where the window was.
Everything is written under another name and renamed at the end: the checkpoint is there whole or not at all. Its bytes
depend on the model, the recipe and the trained replacement alone. The ledger waits for the disk, while it hashes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from app.core.architectures import (
    ArchitectureError,
    Config,
    Family,
    family_of,
    layer_count,
    refuse_uncuttable,
    tied_embeddings,
)
from app.core.discovery import Layout, discover, layer_of, located, predicts_further_tokens
from app.core.safetensors_file import (
    INDEX_FILE,
    PICKLES,
    SINGLE_FILE,
    Checkpoint,
    CorruptSafetensors,
    parameter_count,
    read_checkpoint,
)
from worker.engine.context import StageContext
from worker.engine.errors import EngineError
from worker.engine.export import Insertion, Window, insertion_of, joined
from worker.engine.export.config import cut_config
from worker.engine.healing.updates import Update, Updates, updated_replacement, updates_of
from worker.engine.recipe import Dtype, Format, Kind
from worker.engine.staging import staged
from worker.engine.surgery import (
    CONVERTIBLE,
    NAMES,
    Computed,
    Piece,
    Progress,
    Stored,
    layout,
    read_tensor,
    stored_in,
    usual_dtype,
    write_files,
)

# What comes along unchanged: everything that turns text into tokens and back, generation defaults, and the licence.
COMPANIONS = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model",
    "*.tiktoken", "chat_template*", "additional_chat_templates/*", "generation_config.json", "LICENSE*", "LICENCE*",
    "NOTICE*", "USE_POLICY*",
)  # fmt: skip
WRITTEN = "written"
"""The name that the loaded checkpoint has in a context's memo."""

_BLOCK_BYTES = 4096  # a file's last block is taken whole
_COMPARED_BYTES = 8 << 20


@dataclass(frozen=True)
class Swap:
    """The layers [start, end) that go, and what comes in their place.

    `replacement` has the names that the block's builder gives (relative to a decoder layer, or to the `ffn` block).
    """

    start: int
    end: int
    replacement: Mapping[str, torch.Tensor] = field(default_factory=dict)


Swaps = Sequence[tuple[Window, Insertion]]


@dataclass(frozen=True)
class AssembledCheckpoint:
    """What was written: where, how many parameters, and how many bytes the weight files take."""

    path: Path
    parameters: int
    weight_bytes: int


def run(context: StageContext) -> None:
    """Write `checkpoint/` from the model, `selection.json` and, unless the kind is `none`, the replacements.

    Raises EngineError: `disk_full`, `corrupt_model`, `bad_replacement`, `native_form_refused`, `dtype_overflow`.
    """
    context.memo.pop(WRITTEN, None)
    recipe, selection = context.recipe, context.read_json("selection.json")
    kind = recipe.replacement.kind
    updates = updates_of(context)
    swaps = [
        Swap(window["start"], window["end"], {} if kind == "none" else updated_replacement(context, number, updates))
        for number, window in enumerate(selection["windows"])
    ]
    total = sum(path.stat().st_size for path in context.model.glob("*.safetensors"))
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        context.emit.progress(min(done, total), total, "bytes")

    written = assemble_all(
        context.model,
        context.workspace / "checkpoint",
        swaps,
        kind=kind,
        fmt=recipe.output.format,
        dtype=recipe.output.dtype,
        updates=updates,
        progress=progress,
    )
    context.emit.log(f"wrote {written.parameters:,} parameters, {written.weight_bytes:,} bytes")


def assemble(
    source: Path,
    out: Path,
    *,
    start: int,
    end: int,
    kind: Kind,
    fmt: Format = "auto",
    dtype: Dtype | None = None,
    replacement: Mapping[str, torch.Tensor] | None = None,
    updates: Updates | None = None,
    progress: Progress = lambda _: None,
) -> AssembledCheckpoint:
    """Write to `out` the checkpoint in `source` with one window swapped; see `assemble_all`."""
    swap = Swap(start, end, replacement or {})
    return assemble_all(source, out, [swap], kind=kind, fmt=fmt, dtype=dtype, updates=updates, progress=progress)


def assemble_all(
    source: Path,
    out: Path,
    swaps: Sequence[Swap],
    *,
    kind: Kind,
    fmt: Format = "auto",
    dtype: Dtype | None = None,
    updates: Updates | None = None,
    progress: Progress = lambda _: None,
) -> AssembledCheckpoint:
    """Write to `out` the checkpoint in `source` with all its windows swapped at once.

    `swaps` are in order, with a layer between any two; `updates` are added to tensors that stay, by their stored names;
    `dtype` None keeps every tensor's own. An `out` that is already there is replaced at the very end. Raises
    EngineError as `run` does; whatever happens, nothing half-written stays.
    """
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    try:
        refuse_uncuttable(config)
    except ArchitectureError as error:
        raise EngineError(error.code, str(error)) from error
    _check_windows(swaps, layer_count(config))
    try:
        checkpoint = read_checkpoint(source)
    except CorruptSafetensors as error:
        raise EngineError("corrupt_model", f"{error}; fetch the model again") from error
    layout = discover(config, {name: entry.shape for name, entry in checkpoint.entries()})
    family = located(family_of(config), layout)
    done: list[tuple[Window, Insertion]] = []
    for swap in swaps:
        shift = sum(insertion.layers - window.size for window, insertion in done)
        window = Window(swap.start, swap.end, layer_count(config), swap.start + shift)
        stored = layout.layer_shapes[min(swap.start, window.layers - 1)]
        done.append(
            (
                window,
                insertion_of(family, config, window, kind=kind, fmt=fmt, replacement=swap.replacement, stored=stored),
            )
        )
    new_config = cut_config(config, done, dtype=dtype)
    names = _Renaming(family, config, layout, done)
    insertion = joined([insertion for _, insertion in done])
    dropped = _settle_tied_head(names, config, new_config, checkpoint)
    shards = _plan(checkpoint, names, insertion, dropped, dtype, updates or {})
    files = {"config.json": _json_bytes(new_config), **insertion.files}
    if len(shards) > 1:
        files[INDEX_FILE] = _index(shards)
    companions = _companions(source)
    weight_bytes = sum(_file_bytes(pieces) for pieces in shards.values())
    sizes = [*(_file_bytes(pieces) for pieces in shards.values()), *map(len, files.values())]
    sizes += [path.stat().st_size for path in companions]
    _require_space(out, sum(-(-size // _BLOCK_BYTES) * _BLOCK_BYTES for size in sizes))
    with staged(out) as directory:
        write_files({directory / name: pieces for name, pieces in shards.items()}, progress)
        for name, data in files.items():
            _write(directory / name, data)
        for path in companions:
            _write(directory / path.relative_to(source), path.read_bytes())
    return AssembledCheckpoint(out, parameter_count(read_checkpoint(out)), weight_bytes)


def _check_windows(swaps: Sequence[Swap], layers: int) -> None:
    free = 0
    for swap in swaps:
        if not free <= swap.start <= swap.end <= layers:
            where = f"lies outside the model's {layers} layers" if free == 0 else "meets the one in front of it"
            raise EngineError("bad_window", f"the window [{swap.start}, {swap.end}) {where}")
        free = swap.end + 1


class _Renaming:
    """From a stored tensor's name to its name in the written checkpoint; None where it is cut."""

    def __init__(self, family: Family, config: Config, layout: Layout, swaps: Swaps) -> None:
        self.family = family
        self._config = config
        self._layout = layout
        self._swaps = swaps
        self._renamed_head = next(filter(None, (insertion.renamed_head for _, insertion in swaps)), None)
        layers = self.family.layers
        # A checkpoint of the bare model (no head) leaves the base module's name out.
        self._missing_base = layers.removesuffix(layout.layers) if layers.endswith(f".{layout.layers}") else ""
        if self._missing_base + layout.layers != layers or not any(layout.layer_shapes):
            raise EngineError("corrupt_model", f"the weights hold no tensor named {layers}.*; check config.json")

    def full(self, stored: str) -> str:
        """The name with the base module in front."""
        if stored.startswith((f"{self.family.head}.", "lm_head.")):
            return stored
        return self._missing_base + stored

    def stored(self, full: str) -> str:
        """The stored name of a tensor inside the base module."""
        return full.removeprefix(self._missing_base)

    def new(self, stored: str) -> str | None:
        """The tensor's name in the written checkpoint, None for a tensor of a removed layer."""
        name = self.full(stored)
        if self._renamed_head and name.startswith(f"{self.family.head}."):
            return self._renamed_head + name.removeprefix(self.family.head)
        if predicts_further_tokens(self._config, self._layout.layers, stored):
            return None
        layer, rest = layer_of(self.family.layers, name)
        if layer is None:
            return name
        if layer >= layer_count(self._config):
            raise EngineError("corrupt_model", f"{stored} belongs to no layer that config.json knows")
        shift = 0
        for window, insertion in self._swaps:
            if window.start <= layer < window.end:
                return None
            if layer >= window.end:
                shift += insertion.layers - window.size
        return f"{self.family.layers}.{layer + shift}.{rest}"


def _settle_tied_head(
    names: _Renaming, config: Config, new_config: dict[str, Any], checkpoint: Checkpoint
) -> frozenset[str]:
    """Return the stored copies of a tied head, which are left out.

    Where a config says tied and yet the stored head differs, transformers uses both and warns; the written config says
    what is so.
    """
    heads = [n for n in (f"{names.family.head}.weight", "lm_head.weight") if n in checkpoint.tensor_file]
    embedding = names.stored(f"{names.family.embedding}.weight")
    if not heads or not tied_embeddings(config) or embedding not in checkpoint.tensor_file:
        return frozenset()
    if _same_bytes(stored_in(checkpoint, heads[0]), stored_in(checkpoint, embedding)):
        return frozenset(heads)
    new_config["tie_word_embeddings"] = False
    return frozenset()


def _plan(
    checkpoint: Checkpoint,
    names: _Renaming,
    insertion: Insertion,
    dropped: frozenset[str],
    dtype: Dtype | None,
    updates: Updates,
) -> dict[str, list[Piece]]:
    """Return shard name -> its pieces; shards that lost everything are gone, the rest is numbered anew."""
    wanted = NAMES[getattr(torch, dtype)] if dtype is not None else None

    def piece(new_name: str, stored: Stored, update: Update | None = None) -> Piece:
        source = _updated(stored, update) if update else insertion.overwritten.get(new_name, stored)
        return Piece(new_name, source, wanted if wanted and stored.dtype in CONVERTIBLE else stored.dtype)

    home = _home_of_window(checkpoint, names)
    shards: list[list[Piece]] = []
    for file in checkpoint.files:
        pieces = [
            piece(
                new_name,
                Stored(file.path, file.header.data_offset + entry.start, entry.dtype, entry.shape),
                updates.get(name),
            )
            for name, entry in file.header.tensors.items()
            if name not in dropped and (new_name := names.new(name)) is not None
        ]
        if file.name == home:
            block_dtype = wanted or _usual_dtype(checkpoint)
            for new_name, (layer, rest) in sorted(insertion.copied.items()):
                stored_name = names.stored(f"{names.family.layers}.{layer}.{rest}")
                pieces.append(piece(new_name, stored_in(checkpoint, stored_name)))
            pieces += [Piece(name, tensor, block_dtype) for name, tensor in sorted(insertion.tensors.items())]
        if pieces:
            shards.append(pieces)
    if len(shards) == 1:
        return {SINGLE_FILE: shards[0]}
    return {f"model-{i:05d}-of-{len(shards):05d}.safetensors": pieces for i, pieces in enumerate(shards, start=1)}


def _updated(stored: Stored, update: Update) -> Computed:
    return Computed(stored.shape, lambda: update.applied(read_tensor(stored)))


def _home_of_window(checkpoint: Checkpoint, names: _Renaming) -> str:
    """The file that the replacements go to: the first that holds a removed layer, else the last."""
    for file in checkpoint.files:
        if any(names.new(name) is None for name in file.header.tensors):
            return file.name
    return checkpoint.files[-1].name


def _usual_dtype(checkpoint: Checkpoint) -> str:
    dtype = usual_dtype(checkpoint)
    if dtype is None:
        raise EngineError("corrupt_model", "the weights hold no floating point tensor; quantised models cannot be cut")
    return dtype


def _same_bytes(a: Stored, b: Stored) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    total = Piece("", a, a.dtype).nbytes
    with a.path.open("rb") as left, b.path.open("rb") as right:
        for position in range(0, total, _COMPARED_BYTES):
            count = min(_COMPARED_BYTES, total - position)
            chunks = (os.pread(f.fileno(), count, s.offset + position) for f, s in ((left, a), (right, b)))
            if next(chunks) != next(chunks):
                return False
    return True


def _companions(source: Path) -> list[Path]:
    found = {path for pattern in COMPANIONS for path in source.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.suffix.lower() not in PICKLES)


def _index(shards: Mapping[str, Sequence[Piece]]) -> bytes:
    weight_map = {piece.name: name for name, pieces in shards.items() for piece in pieces}
    total = sum(piece.nbytes for pieces in shards.values() for piece in pieces)
    return _json_bytes({"metadata": {"total_size": total}, "weight_map": weight_map})


def _json_bytes(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _file_bytes(pieces: Sequence[Piece]) -> int:
    return len(layout(pieces)[1]) + sum(piece.nbytes for piece in pieces)


def _require_space(out: Path, needed: int) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise EngineError(
            "disk_full",
            f"the checkpoint needs {needed} bytes, {free} are free in the workspace; free the difference and retry",
            permanent=True,
        )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
