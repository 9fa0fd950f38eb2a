"""The weights of a model that is never in memory as a whole: an empty model, and its tensors read by name.

Reading goes through one small buffer straight into tensors of the dtype that is computed in, so that a layer costs its
own bytes and no more: a memory map would do for equal dtypes only, and mapping more than the machine's memory for
writing is refused by the kernel.
"""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.core.safetensors_file import Checkpoint, is_buffer, read_checkpoint
from worker.engine.errors import EngineError
from worker.engine.surgery import TORCH_DTYPES, Stored

_CHUNK_BYTES = 8 << 20


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Let modules that are made meanwhile have parameters without storage; buffers (rotary frequencies) are real."""
    register = nn.Module.register_parameter

    def without_storage(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        # Tied parameters come by twice, and stay one object.
        if parameter is not None and not parameter.is_meta:
            module._parameters[name] = nn.Parameter(parameter.to("meta"), requires_grad=False)

    nn.Module.register_parameter = without_storage  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def stored_parameters(checkpoint: Checkpoint) -> int:
    """Return the number of parameters in a checkpoint's files."""
    return sum(entry.elements for name, entry in checkpoint.entries() if not is_buffer(name))


@dataclass(frozen=True)
class Packed:
    """Module tensors that the library makes out of stored ones: experts stacked, projections fused or split.

    Attributes:
        converter: transformers' own `WeightConverter`.
        first: the first of its targets' module names.
        parts: its pattern and the place of every stored tensor, in order.
    """

    converter: Any
    first: str
    parts: list[tuple[str, Stored]] = field(default_factory=list)


class Weights:
    """Reads the tensors of a model directory under the names that the model's own modules give them.

    Attributes:
        rounded: a dtype that floating point tensors are rounded to before anything else, None = as stored.
    """

    def __init__(self, path: Path, model: nn.Module, device: torch.device) -> None:
        """Find every tensor of `model`, which may be without storage, in the safetensors of `path`.

        Tensors get the dtype that they have in the model, or float32 where the library never computes them in less.

        Raises:
            EngineError: `cannot_stream` where the files hold a tensor of the model neither under a name of its own nor
                in a form that the library knows how to convert.
        """
        self._device = device
        self.rounded: torch.dtype | None = None
        self._config = getattr(model, "config", None)
        checkpoint = read_checkpoint(path)
        self._files = {file.path: os.open(file.path, os.O_RDONLY) for file in checkpoint.files}
        weakref.finalize(self, _close, list(self._files.values()))
        self._stored = _matched(model, checkpoint)
        kept = _kept_in_float32(model)
        self._dtypes = {
            name: torch.float32 if any(part in name for part in kept) else tensor.dtype
            for name, tensor in model.state_dict().items()
        }

    def read(self, name: str, rows: Sequence[int] | None = None, into: Tensor | None = None) -> Tensor:
        """Return a tensor.

        Args:
            name: what the model's modules call it.
            rows: which of its rows; all where None.
            into: a tensor that is not needed any more, whose memory is taken where it suits.

        Raises:
            EngineError: `corrupt_model` where a file is shorter than its header said.
        """
        stored, dtype = self._stored[name], self._dtypes[name]
        if isinstance(stored, Packed):
            made = self._unpacked(stored, name)
            return made if rows is None else made[list(rows)]
        if rows is None:
            return self._whole(stored, dtype, into)
        made = torch.empty((len(rows), *stored.shape[1:]), dtype=dtype, device=self._device)
        row_bytes = made[0].numel() * TORCH_DTYPES[stored.dtype].itemsize
        for place, row in enumerate(rows):
            self._fill(made[place].view(-1), stored, row * row_bytes)
        return made

    def _whole(self, stored: Stored, dtype: torch.dtype, into: Tensor | None = None) -> Tensor:
        reuse = into is not None and into.shape == stored.shape
        made = into if reuse else torch.empty(stored.shape, dtype=dtype, device=self._device)
        assert made is not None
        self._fill(made.view(-1), stored, 0)
        return made

    def _unpacked(self, packed: Packed, name: str) -> Tensor:
        converter = copy.deepcopy(packed.converter)
        for number, (pattern, stored) in enumerate(packed.parts):
            converter.add_tensor(packed.first, str(number), pattern, partial(self._whole, stored, self._dtypes[name]))
        value = converter.convert(packed.first, config=self._config)[name]
        made: Tensor = value[0] if isinstance(value, list) else value
        return made

    def _fill(self, target: Tensor, stored: Stored, offset: int) -> None:
        kind = TORCH_DTYPES[stored.dtype]
        file = self._files[stored.path]
        chunk = bytearray(min(_CHUNK_BYTES, target.numel() * kind.itemsize))
        numbers = max(1, len(chunk) // kind.itemsize)
        for begin in range(0, target.numel(), numbers):
            part = target[begin : begin + numbers]
            buffer = memoryview(chunk)[: part.numel() * kind.itemsize]
            _read_all(file, buffer, stored.offset + offset + begin * kind.itemsize, stored.path)
            values = torch.frombuffer(buffer, dtype=kind)
            if self.rounded is not None and kind.is_floating_point:
                values = values.to(self.rounded)
            part.copy_(values)

    def under(self, prefix: str, names: Collection[str], into: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Read the tensors of the module `prefix` by their `names` in it; `into` holds those of one that has gone."""
        spare = into or {}
        return {name: self.read(f"{prefix}.{name}", into=spare.get(name)) for name in names}


def _kept_in_float32(model: nn.Module) -> tuple[str, ...]:
    """Return parts of the names of tensors that transformers loads in float32 whatever the model's dtype."""
    dtype = getattr(model, "dtype", torch.float32)
    kept: set[str] = set()
    if dtype in (torch.float16, torch.bfloat16):
        kept |= set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16:
        kept |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    return tuple(sorted(kept))


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)


def _read_all(file: int, buffer: memoryview, offset: int, path: Path) -> None:
    done = 0
    while done < len(buffer):
        count = os.preadv(file, [buffer[done:]], offset + done)
        if count == 0:
            raise EngineError("corrupt_model", f"{path.name} became shorter while it was read")
        done += count


def _matched(model: nn.Module, checkpoint: Checkpoint) -> dict[str, Stored | Packed]:
    """Return module name -> where it is stored; tied tensors that are stored once have all their names."""
    expected = model.state_dict(keep_vars=True)
    found = _by_name(model, checkpoint, expected)
    if not _complete(found, expected):
        found = _by_conversion(model, checkpoint, expected)
    homes = {id(expected[name]): stored for name, stored in found.items()}
    for name, tensor in expected.items():
        if id(tensor) not in homes:
            raise _refusal(f"the files hold no tensor {name}")
        stored = found.setdefault(name, homes[id(tensor)])
        if isinstance(stored, Stored) and stored.shape != tuple(tensor.shape):
            raise _refusal(f"{name} is stored as {list(stored.shape)}, not {list(tensor.shape)}")
    return found


def _complete(found: Mapping[str, Stored | Packed], expected: Mapping[str, Tensor]) -> bool:
    homes = {id(expected[name]) for name in found}
    return all(id(tensor) in homes for tensor in expected.values())


def _places(checkpoint: Checkpoint) -> dict[str, Stored]:
    return {
        name: Stored(file.path, file.header.data_offset + entry.start, entry.dtype, entry.shape)
        for file in checkpoint.files
        for name, entry in file.header.tensors.items()
        if entry.dtype in TORCH_DTYPES
    }


def _by_name(model: nn.Module, checkpoint: Checkpoint, expected: Mapping[str, Tensor]) -> dict[str, Stored | Packed]:
    """Match names as they are, or with the base module's in front or not."""
    base = f"{getattr(model, 'base_model_prefix', '')}."
    found: dict[str, Stored | Packed] = {}
    for stored, place in _places(checkpoint).items():
        names = (stored, base + stored, stored.removeprefix(base))
        if name := next((name for name in names if name in expected), None):
            found[name] = place
    return found


def _by_conversion(
    model: nn.Module, checkpoint: Checkpoint, expected: Mapping[str, Tensor]
) -> dict[str, Stored | Packed]:
    """Match names by the library's own table of renamings and conversions, as its `from_pretrained` does."""
    try:
        # Not part of the library's stable interface.
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key
    except ImportError as error:
        raise _refusal(
            f"its tensors have other names, and this version of transformers hides which ({error})"
        ) from error
    table = get_model_conversion_mapping(model)
    renamings = [entry for entry in table if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in table if isinstance(entry, WeightConverter)]
    found: dict[str, Stored | Packed] = {}
    places = _places(checkpoint)
    for stored in sorted(places, key=dot_natural_key):
        name, pattern = rename_source_key(stored, renamings, converters, model.base_model_prefix, dict(expected))
        if name not in expected:
            continue
        if pattern is None:
            found[name] = places[stored]
            continue
        converter = next(entry for entry in converters if pattern in entry.source_patterns)
        packed = found.get(name)
        if not isinstance(packed, Packed):
            packed = Packed(converter, name)
            for target in converter.target_patterns:
                found[name.replace(converter.target_patterns[0], target)] = packed
        packed.parts.append((pattern, places[stored]))
    return {name: place for name, place in found.items() if name in expected}


def _refusal(reason: str) -> EngineError:
    return EngineError(
        "cannot_stream",
        f"this model cannot be read layer by layer: {reason}; run it resident, on a machine that holds it whole",
    )
