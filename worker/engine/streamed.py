"""A model larger than memory: one decoder layer at a time, all batches through it, then the next.

The model's own forward pass, with stand-ins for its layers, computes embeddings, masks and positions, and at the end
the final norm and the logits; the layers are called with what it would have handed them. While one layer computes, a
thread reads the next. Each pass reads the checkpoint's layers once, however many batches there are.

Memory holds two layers in the dtype computed in, the embeddings of one batch, the states that `StateBuffer` keeps in
memory, and one batch's working room; the language-model head is read for logits only. Disk holds one state per token,
or with ``together`` all wanted ones: tokens x (L + 1) x hidden numbers; where half of the free disk is less, sequences
go through in groups, each of which reads the layers anew.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import json
import shutil
from collections.abc import Collection, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from app.core.architectures import Family, family_of, hidden_size, layer_count
from worker.engine.decoder import layers_path
from worker.engine.device import compute_dtype, stored_dtype
from worker.engine.export import modeling_streamline
from worker.engine.head import Head, head_of
from worker.engine.hidden_states import Layers, VisitLast, VisitWindow
from worker.engine.stand_ins import hidden_of, output_of
from worker.engine.state_buffer import StateBuffer
from worker.engine.weights import Weights, parameters_on_meta

Batches = list[tuple[int, Tensor]]
"""First sequence and token ids [batch, length] of each batch."""

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""What a layer is called with beside the hidden states."""

Calls = dict[int, list[Call]]
"""Batch size -> each layer's call."""


class _StandIn(nn.Module):
    """Has a layer's place in the model's own forward pass: notes what it is called with and passes the state on."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        # What the model reads off a layer (its kind of attention) stays readable.
        self.__dict__ |= {name: value for name, value in layer.__dict__.items() if not name.startswith("_")}
        self.seen: tuple[Tensor, tuple[Any, ...], dict[str, Any]] | None = None
        self.given: Tensor | None = None
        self._kind = type(layer)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.seen = (hidden_states, args, kwargs)
        return output_of(self._kind, hidden_states if self.given is None else self.given)


class StreamedDecoder:
    """A model directory, run layer by layer; see `worker.engine.hidden_states.LayeredModel`."""

    execution: Literal["resident", "streamed"] = "streamed"

    def __init__(
        self, path: Path, model: nn.Module, config: dict[str, Any], tokenizer: Any, dtype: torch.dtype, device: str,
        scratch: Path,
    ) -> None:  # fmt: skip
        """Take the model apart.

        Args:
            path: config and safetensors.
            model: made by `parameters_on_meta`, without storage.
            config: the parsed config.json.
            tokenizer: the model's own.
            dtype: what to compute in.
            device: ``cpu`` or ``cuda``.
            scratch: where hidden states go that memory has no room for; made when it is needed.

        Raises:
            EngineError: `cannot_stream`; see `Weights`.
        """
        self.model, self.config, self.tokenizer = model, config, tokenizer
        self.family: Family = family_of(config)
        self.stored_dtype = stored_dtype(path)
        self._device, self._dtype, self._scratch = torch.device(device), dtype, scratch
        model.eval().requires_grad_(False)
        self._weights = Weights(path, model, self._device)
        self._layers_path = layers_path(model, layer_count(config))
        parent, _, name = self._layers_path.rpartition(".")
        layers = model.get_submodule(self._layers_path)
        assert isinstance(layers, nn.ModuleList)
        self._layers = list(layers)
        self._empty = [layer.state_dict() for layer in self._layers]
        self._stand_ins = [_StandIn(layer) for layer in self._layers]
        setattr(model.get_submodule(parent), name, nn.ModuleList(self._stand_ins))
        self._embedding: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
        self._head: nn.Module = model.get_output_embeddings()  # type: ignore[operator]
        names = {module: name for name, module in model.named_modules()}
        self._embedding_name, self._head_name = names[self._embedding], names[self._head]
        self._embedding.padding_idx = None  # a row's number changes, see `_run_frame`
        self._read_the_rest()
        # What `logits` runs: each layer, or a block that has the layer's settings.
        self._places: list[tuple[int, nn.Module | None]] = [(index, None) for index in range(len(self._layers))]

    def _read_the_rest(self) -> None:
        """Read what is neither layer, token embedding nor head: norms, learned positions; a few megabytes."""
        for name, module in self.model.named_modules():
            if module not in (self._embedding, self._head):
                own = {key: value for key, value in module.state_dict().items() if "." not in key}
                module.load_state_dict(self._weights.under(name, own), strict=False, assign=True)
        # Tables that are computed and not stored.
        for module in itertools.chain(self.model.modules(), *(layer.modules() for layer in self._layers)):
            for key, buffer in module.named_buffers(recurse=False):
                setattr(module, key, buffer.to(self._device))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self._dtype

    @property
    def layer_count(self) -> int:
        """The number of decoder layers, L."""
        return len(self._layers)

    def layer(self, index: int) -> nn.Module:
        """Return a copy of a decoder layer with its weights, the caller's to change."""
        layer = copy.deepcopy(self._layers[index])
        layer.load_state_dict(self._read(index), assign=True)
        return layer

    def _read(self, index: int, into: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        return self._weights.under(f"{self._layers_path}.{index}", self._empty[index], into)

    def _loaded(self, indices: Sequence[int]) -> Generator[tuple[int, nn.Module]]:
        """Yield layers with their weights in place, one after the other; the next is read meanwhile.

        Two sets of tensors take turns: what a layer needed is filled with the one after the next.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
            ahead = reader.submit(self._read, indices[0]) if indices else None
            spare: dict[str, Tensor] | None = None
            for place, index in enumerate(indices):
                assert ahead is not None
                tensors = ahead.result()
                following = indices[place + 1 : place + 2]
                ahead = reader.submit(self._read, following[0], spare) if following else None
                layer = self._layers[index]
                layer.load_state_dict(tensors, assign=True)
                try:
                    yield index, layer
                finally:
                    layer.load_state_dict(self._empty[index], assign=True)
                spare = tensors

    def _run_frame(self, run: nn.Module, ids: Tensor, given: Tensor | None = None) -> Any:
        """Run `run` (the model, or its body) on ids [batch, length] with stand-ins for the layers.

        Only the embeddings that occur are read, and numbered anew. `given` is what the last layer is to have returned.
        """
        occurring, places = torch.unique(ids, return_inverse=True)
        rows = self._weights.read(f"{self._embedding_name}.weight", rows=occurring.tolist())
        empty = self._embedding.weight
        self._embedding.weight = nn.Parameter(rows, requires_grad=False)
        self._stand_ins[-1].given = given
        try:
            return run(input_ids=places.to(self._device), use_cache=False)
        finally:
            self._embedding.weight = empty
            self._stand_ins[-1].given = None

    def _enter(self, ids: Tensor, calls: Calls) -> Tensor:
        """Return h_0 of ids [batch, length], and note under the batch's size what each layer is called with."""
        self._run_frame(self._body, ids)
        seen = [stand_in.seen for stand_in in self._stand_ins]
        for stand_in in self._stand_ins:
            stand_in.seen = None
        assert seen[0] is not None
        calls[len(ids)] = [(args, kwargs) for _, args, kwargs in filter(None, seen)]
        return seen[0][0]

    @property
    def _body(self) -> nn.Module:
        return self.model.get_submodule(self._layers_path.rpartition(".")[0])

    def _leave(self, hidden: Tensor) -> Tensor:
        """Return what the head is applied to, for h_L [batch, length, hidden]."""
        ids = torch.zeros(hidden.shape[:2], dtype=torch.long)
        last: Tensor = self._run_frame(self._body, ids, hidden).last_hidden_state
        return last

    def _buffer(self, slots: int, windows: Tensor) -> StateBuffer:
        self._scratch.mkdir(parents=True, exist_ok=True)
        shape = (len(windows), windows.shape[1], hidden_size(self.config))
        return StateBuffer(self._scratch, slots, shape, self._dtype, self._device)

    def visit_windows(
        self,
        windows: Tensor,
        batch_size: int,
        visit: VisitWindow,
        *,
        at: Collection[int] | None = None,
        together: bool = False,
    ) -> None:
        """Run the layers that are needed; see `LayeredModel.visit_windows`."""
        wanted = sorted(set(range(self.layer_count + 1) if at is None else at))
        for first, group in self._groups(windows, batch_size, len(wanted) + 1 if together else 1):
            self._visit_group(group, first, batch_size, visit, wanted, together)

    def _groups(self, windows: Tensor, batch_size: int, slots: int) -> Iterator[tuple[int, Tensor]]:
        """Yield first sequence and windows of groups, in whole batches, whose states take half of the free disk."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        sequence = slots * windows.shape[1] * hidden_size(self.config) * self._dtype.itemsize
        fitting = shutil.disk_usage(self._scratch).free // 2 // sequence
        size = max(1, fitting // batch_size) * batch_size
        for first in range(0, len(windows), size):
            yield first, windows[first : first + size]

    @torch.inference_mode()
    def _visit_group(
        self, windows: Tensor, offset: int, batch_size: int, visit: VisitWindow, wanted: list[int], together: bool
    ) -> None:
        kept = {row: slot for slot, row in enumerate(wanted)} if together else {}
        batches = _batches(windows, batch_size)
        calls: Calls = {}

        def seen(row: int, first: int, hidden: Tensor) -> None:
            if row in wanted and not together:
                visit(offset + first, row, hidden)

        def slot(row: int) -> int:
            return kept.get(row, len(kept))

        with self._buffer(len(kept) + 1, windows) as states:
            for first, ids in batches:
                states.write(slot(0), first, self._enter(ids, calls))
            for index, layer in self._loaded(range(wanted[-1])):
                for first, ids in batches:
                    hidden = states.read(slot(index), first, len(ids))
                    seen(index, first, hidden)
                    states.write(slot(index + 1), first, _called(layer, hidden, calls[len(ids)][index]))
            for first, ids in batches:
                for row in wanted if together else wanted[-1:]:
                    visit(offset + first, row, states.read(slot(row), first, len(ids)))

    def last_states(self, windows: Tensor, batch_size: int, visit: VisitLast, *, cut: Layers | None = None) -> None:
        """Run the whole model, without the head; see `LayeredModel.last_states`."""
        for first, group in self._groups(windows, batch_size, 1 if cut is None else 2):
            self._last_of_group(group, first, batch_size, visit, cut)

    @torch.inference_mode()
    def _last_of_group(
        self, windows: Tensor, offset: int, batch_size: int, visit: VisitLast, cut: Layers | None
    ) -> None:
        batches = _batches(windows, batch_size)
        calls: Calls = {}
        gone = {index for start, end in cut or () for index in range(start, end)}
        start = min(gone, default=self.layer_count)
        with self._buffer(1 if cut is None else 2, windows) as states:
            for first, ids in batches:
                states.write(0, first, self._enter(ids, calls))
            for index, layer in self._loaded(range(self.layer_count)):
                for first, ids in batches:
                    call = calls[len(ids)][index]
                    hidden = states.read(0, first, len(ids))
                    if index == start:
                        states.write(1, first, hidden)
                    states.write(0, first, _called(layer, hidden, call))
                    if index > start and index not in gone:
                        states.write(1, first, _called(layer, states.read(1, first, len(ids)), call))
            for first, ids in batches:
                for slot, name in enumerate(("dense",) if cut is None else ("dense", "cut")):
                    visit(name, offset + first, self._leave(states.read(slot, first, len(ids))))

    @contextmanager
    def head(self) -> Iterator[Head]:
        """Have the language-model head in memory until the context ends."""
        empty = self._head.state_dict()
        self._head.load_state_dict(self._weights.under(self._head_name, empty), assign=True)
        try:
            yield head_of(self.model)
        finally:
            self._head.load_state_dict(empty, assign=True)

    @torch.inference_mode()
    def logits(self, input_ids: Tensor) -> Tensor:
        """Return the logits [batch, sequence, vocabulary], of the model with its window swapped in `with_layers`."""
        calls: Calls = {}
        hidden = self._enter(input_ids, calls)
        own = calls[len(input_ids)]
        loaded = self._loaded([index for index, block in self._places if block is None])
        for index, block in self._places:
            if block is None:
                hidden = _called(next(loaded)[1], hidden, own[index])
            else:
                is_layer = isinstance(block, type(self._layers[0]))
                hidden = _called(block, hidden, own[index] if is_layer else ((), {}))
        loaded.close()
        with self.head():
            logits: Tensor = self._run_frame(self.model, torch.zeros_like(input_ids), hidden).logits
        return logits

    @torch.no_grad()  # not inference_mode: autograd has to be able to save these
    def layer_arguments(self, index: int, batch: int, length: int) -> dict[str, Any]:
        """Return what layer `index` is given beside the hidden states, for a batch without padding."""
        calls: Calls = {}
        self._enter(torch.zeros((batch, length), dtype=torch.long), calls)
        args, kwargs = calls[batch][index]
        names = list(inspect.signature(type(self._layers[index]).forward).parameters)[2:]  # self and hidden states
        return {**dict(zip(names, args, strict=False)), **kwargs}

    @contextmanager
    def with_layers(self, start: int, end: int, block: nn.Module | None = None) -> Iterator[None]:
        """Take layers [start, end) out of `logits`, and put `block` in their place, until the context ends."""
        before = self._places
        blocks = [] if block is None else list(block) if isinstance(block, nn.ModuleList) else [block]
        put_in = [(index, one) for (index, _), one in zip(before[start:end], blocks, strict=False)]
        self._places = [*before[:start], *put_in, *before[end:]]
        try:
            yield
        finally:
            self._places = before

    @contextmanager
    def rounded(self, dtype: torch.dtype) -> Iterator[None]:
        """Round weights to `dtype` while they are read, until the context ends."""
        self._weights.rounded = dtype
        self._read_the_rest()
        try:
            yield
        finally:
            self._weights.rounded = None
            self._read_the_rest()


def _batches(windows: Tensor, batch_size: int) -> Batches:
    return [(first, windows[first : first + batch_size].long()) for first in range(0, len(windows), batch_size)]


def _called(layer: nn.Module, hidden: Tensor, call: Call) -> Tensor:
    return hidden_of(layer(hidden, *call[0], **call[1]))


def load_streamed(
    path: Path, device: str, scratch: Path, dtype: torch.dtype | None = None, *, trust_remote_code: bool = False
) -> StreamedDecoder:
    """Open a model directory for running it layer by layer; no layer is read yet.

    Args:
        path: config, safetensors and tokenizer of a dense model or of a written checkpoint.
        device: ``cpu`` or ``cuda``.
        scratch: where hidden states go that memory has no room for.
        dtype: what to compute in; by default what `load_decoder` takes.
        trust_remote_code: whether modelling code in the directory may run.

    Raises:
        EngineError: `cannot_stream` where its weights cannot be read layer by layer.
    """
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    dtype = dtype or compute_dtype(device, stored_dtype(path))
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
    with parameters_on_meta():
        if "streamline" in config:  # by the very file that was shipped with it, see `load_written`
            model_class = getattr(modeling_streamline, config["architectures"][0])
            model = model_class._from_config(model_class.config_class.from_pretrained(path), dtype=dtype)
        else:
            described = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
            model = AutoModelForCausalLM.from_config(described, dtype=dtype, trust_remote_code=trust_remote_code)
    return StreamedDecoder(path, model, config, tokenizer, dtype, device, scratch)
