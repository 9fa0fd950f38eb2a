"""A causal language model as its decoder layers: run some of them, watch the residual stream, swap a window.

ONE mechanism serves all families: the model's own forward pass prepares embeddings, masks and positions and calls the
layers; hooks on the layers see every hidden state and stop the pass after the last one that is wanted. So OPT's learned
positions, Qwen's sliding layers and rotary embeddings need no code here.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from app.core.architectures import Family, family_of, field_name, layer_count
from app.core.layer_fields import cut_layer_fields, kept_layers
from app.core.refusals import adapter_refusal
from worker.engine.device import compute_dtype, stored_dtype
from worker.engine.errors import EngineError
from worker.engine.head import Head, head_of
from worker.engine.hidden_states import Layers, VisitLast, VisitWindow, without
from worker.engine.stand_ins import After, Alone, Before, Given, PassOn, hidden_of

Visit = Callable[[int, Tensor], None]


class _Enough(Exception):  # noqa: N818 - a signal, not an error
    """Raised by a hook when all wanted hidden states have been seen; never leaves this module."""


class Decoder:
    """A loaded model with its layers in reach. Evaluation mode, no gradients."""

    execution: Literal["resident", "streamed"] = "resident"

    def __init__(self, model: nn.Module, config: dict[str, Any], tokenizer: Any, stored: torch.dtype) -> None:
        self.model = model
        self.config = config
        self.family: Family = family_of(config)
        self.layers_path = layers_path(model, layer_count(config))
        self.tokenizer = tokenizer
        self.stored_dtype = stored
        model.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are computed in."""
        return next(self.model.parameters()).dtype

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, in order."""
        layers = self.model.get_submodule(self.layers_path)
        assert isinstance(layers, nn.ModuleList)
        return layers

    @property
    def layer_count(self) -> int:
        """The number of decoder layers, L."""
        return len(self.layers)

    def layer(self, index: int) -> nn.Module:
        """Return a copy of a decoder layer with its weights, the caller's to change."""
        return copy.deepcopy(self.layers[index])

    @property
    def body(self) -> nn.Module:
        """The model without its language-model head: what owns the layers."""
        return self.model.get_submodule(self.layers_path.rpartition(".")[0])

    @torch.inference_mode()
    def visit(
        self,
        input_ids: Tensor,
        visit: Visit,
        *,
        at: Collection[int] | None = None,
        attention_mask: Tensor | None = None,
    ) -> None:
        """Run the layers that are needed and call ``visit(l, h_l)`` for each wanted l, in order.

        h_0 is the input of layer 0, h_l the residual stream after layer l - 1, and h_L the one BEFORE the final norm.
        Nothing past the last wanted layer runs, and never the head.

        Args:
            input_ids: [batch, sequence], integers, on any device.
            visit: called with l and h_l [batch, sequence, hidden] in the compute dtype; copy what is to be kept.
            at: which l are wanted; all of 0..L where None.
            attention_mask: [batch, sequence], 1 for tokens and 0 for padding.
        """
        layers = list(self.layers)
        wanted = set(range(len(layers) + 1)) if at is None else set(at)
        last = max(wanted)

        def before(index: int) -> Callable[..., None]:
            def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                visit(index, _hidden(args, kwargs))
                if index == last:
                    raise _Enough

            return hook

        def after_all(_: nn.Module, __: Any, output: Tensor | tuple[Tensor, ...]) -> None:
            visit(len(layers), hidden_of(output))
            raise _Enough

        with ExitStack() as hooks:
            for index in sorted(wanted - {len(layers)}):
                handle = layers[index].register_forward_pre_hook(before(index), with_kwargs=True)
                hooks.callback(handle.remove)
            if last == len(layers):
                hooks.callback(layers[-1].register_forward_hook(after_all).remove)
            with suppress(_Enough):
                self._run_body(input_ids, attention_mask)

    def _run_body(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> None:
        mask = None if attention_mask is None else attention_mask.to(self.device)
        self.body(input_ids=input_ids.to(self.device, torch.long), attention_mask=mask, use_cache=False)

    def visit_windows(
        self,
        windows: Tensor,
        batch_size: int,
        visit: VisitWindow,
        *,
        at: Collection[int] | None = None,
        together: bool = False,
    ) -> None:
        """Run the layers that are needed, always batch after batch; see `LayeredModel.visit_windows`."""
        for first in range(0, len(windows), batch_size):
            self.visit(windows[first : first + batch_size], partial(visit, first), at=at)

    @torch.inference_mode()
    def last_states(self, windows: Tensor, batch_size: int, visit: VisitLast, *, cut: Layers | None = None) -> None:
        """Run the whole model, without the head; see `LayeredModel.last_states`."""
        for first in range(0, len(windows), batch_size):
            ids = windows[first : first + batch_size]
            if cut is None:
                visit("dense", first, self._last_hidden(ids))
            else:
                self._visit_dense_and_cut(ids, first, visit, cut)

    def _visit_dense_and_cut(self, ids: Tensor, first: int, visit: VisitLast, cut: Layers) -> None:
        """Both run the same layers up to the cut: the dense pass leaves h_start behind, the other goes on from it."""
        (start, end), *behind = cut
        kept: list[Tensor] = []
        with ExitStack() as hooks:
            if start:
                keep = self.layers[start].register_forward_pre_hook(
                    lambda _, args, kwargs: kept.append(_hidden(args, kwargs)), with_kwargs=True
                )
                hooks.callback(keep.remove)
            dense = self._last_hidden(ids)
        visit("dense", first, dense)
        known = kept and end < self.layer_count
        in_front = self.with_layers(0, end, Given(kept[0])) if known else self.with_layers(start, end)
        with without(self, behind), in_front:
            visit("cut", first, self._last_hidden(ids))

    @torch.inference_mode()
    def last_states_behind(self, shared: Tensor, owners: Sequence[int], tails: Tensor) -> Tensor:
        """Run the whole model, without the head, on sequences that go on from shared beginnings, each computed once.

        Args:
            shared: token ids [beginnings, length].
            owners: the beginning of each tail.
            tails: token ids [rows, length], padded on the right with anything.

        Returns:
            What the head is applied to, of the tails alone: [rows, length, hidden].
        """
        kept = self.body(input_ids=shared.to(self.device, torch.long), use_cache=True).past_key_values
        kept.batch_select_indices(torch.tensor(owners, device=self.device))
        ids = tails.to(self.device, torch.long)
        hidden: Tensor = self.body(input_ids=ids, past_key_values=kept, use_cache=True).last_hidden_state
        return hidden

    @property
    def cached_bytes_per_token(self) -> int:
        """At most what keys and values of one token take: less where several heads share them."""
        config: Any = self.model.config
        return int(2 * self.layer_count * config.hidden_size * self.dtype.itemsize)

    def _last_hidden(self, ids: Tensor) -> Tensor:
        hidden: Tensor = self.body(input_ids=ids.to(self.device, torch.long), use_cache=False).last_hidden_state
        return hidden

    @contextmanager
    def head(self) -> Iterator[Head]:
        """Have the language-model head."""
        yield head_of(self.model)

    def hidden_states(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, upto: int | None = None
    ) -> list[Tensor]:
        """Return h_0 .. h_upto (default h_L), each [batch, sequence, hidden]; see `visit`."""
        states: list[Tensor] = []
        last = len(self.layers) if upto is None else upto
        self.visit(input_ids, lambda _, h: states.append(h), at=range(last + 1), attention_mask=attention_mask)
        return states

    @torch.inference_mode()
    def logits(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the head's logits [batch, sequence, vocabulary]."""
        mask = None if attention_mask is None else attention_mask.to(self.device)
        output = self.model(input_ids=input_ids.to(self.device, torch.long), attention_mask=mask, use_cache=False)
        logits: Tensor = output.logits
        return logits

    def logits_from(self, index: int, hidden: Tensor) -> Tensor:
        """Run layers index..L-1, the final norm and the head on a given h_index; the layers in front are not run.

        Gradients flow back to `hidden`, never into the model's weights. For batches without padding.

        Args:
            index: from 1 to L; L runs the final norm and the head alone.
            hidden: h_index [batch, sequence, hidden].

        Returns:
            Logits [batch, sequence, vocabulary] in the compute dtype.
        """
        ids = torch.zeros(hidden.shape[:2], dtype=torch.long, device=self.device)
        with self.with_layers(0, index, Given(hidden.to(self.dtype))):
            logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits

    @torch.no_grad()  # not inference_mode: autograd has to be able to save these
    def layer_arguments(self, index: int, batch: int, length: int) -> dict[str, Any]:
        """Return what the model hands to layer `index` beside the hidden states, for a batch without padding.

        Mask, rotary embeddings and position ids depend on the shape alone, so the layers in front are not run.

        Args:
            index: the layer's place.
            batch: sequences in the batch.
            length: tokens per sequence.
        """
        seen: dict[str, Any] = {}

        probe = self.layers[index]
        names = list(inspect.signature(type(probe).forward).parameters)[1:]

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.update({**dict(zip(names, args, strict=False)), **kwargs})
            del seen["hidden_states"]
            raise _Enough

        stubs = [PassOn() for _ in range(index)]
        handle = probe.register_forward_pre_hook(hook, with_kwargs=True)
        try:
            with self._layer_list([*stubs, *list(self.layers)[index:]]), suppress(_Enough):
                self._run_body(torch.zeros((batch, length), dtype=torch.long))
        finally:
            handle.remove()
        return seen

    @contextmanager
    def _layer_list(self, layers: list[nn.Module]) -> Iterator[None]:
        path, _, name = self.layers_path.rpartition(".")
        parent, original = self.model.get_submodule(path), self.layers
        setattr(parent, name, nn.ModuleList(layers))
        try:
            yield
        finally:
            setattr(parent, name, original)

    @contextmanager
    def with_layers(self, start: int, end: int, block: nn.Module | None = None) -> Iterator[None]:
        """Take layers [start, end) out, and put `block` in their place, until the context ends; then all is as before.

        A decoder layer takes a place in the list, and so does each of a list of them. Any other block has no attention
        and no cache slot: it rides in front of the next layer (behind the last one where the window ends the model), so
        that masks, per-layer config lists and cache slots stay those of the attention layers, as in the written
        checkpoint.

        Args:
            start: first layer that goes.
            end: the layer after the last one that goes.
            block: maps h [batch, sequence, hidden] to h', or a list of decoder layers, or None for a plain cut.
        """
        original = list(self.layers)
        front, back = original[:start], original[end:]
        slots = 0
        if isinstance(block, nn.ModuleList):
            layers, slots = [*front, *block, *back], len(block)
        elif block is not None and isinstance(block, type(original[0])):
            layers, slots = [*front, block, *back], 1
        elif block is not None and back:
            layers = [*front, Before(block, back[0]), *back[1:]]
        elif block is not None and front:
            layers = [*front[:-1], After(front[-1], block)]
        elif block is not None:
            layers, slots = [Alone(block, type(original[0]))], 1
        else:
            layers = [*front, *back]
        with ExitStack() as restore:
            restore.enter_context(self._layer_list(layers))
            self._cut_config(kept_layers(start, end, len(original), inserted=slots), restore)
            _renumber(layers, restore)
            yield

    def _cut_config(self, kept: list[int], restore: ExitStack) -> None:
        config: Any = self.model.config
        values = config.to_dict()
        fields = {field_name(values, "num_hidden_layers"): len(kept), **cut_layer_fields(values, kept)}
        for name, value in fields.items():
            if value is not None and hasattr(config, name):
                restore.callback(setattr, config, name, getattr(config, name))
                setattr(config, name, value)

    @contextmanager
    def rounded(self, dtype: torch.dtype) -> Iterator[None]:
        """Compute with weights rounded to `dtype` until the context ends."""
        # With the stored buffers: DeepSeek-V3's routers have one.
        stored = self.model.state_dict(keep_vars=True).values()
        originals = [(tensor, tensor.data) for tensor in stored if tensor.is_floating_point()]
        for tensor, data in originals:
            tensor.data = data.to(dtype).to(data.dtype)
        try:
            yield
        finally:
            for tensor, data in originals:
                tensor.data = data


def _renumber(layers: list[nn.Module], restore: ExitStack) -> None:
    """Give the attention modules the cache slots of their new places."""
    for index, layer in enumerate(layers):
        for module in layer.modules():
            if isinstance(number := getattr(module, "layer_idx", None), int):
                restore.callback(setattr, module, "layer_idx", number)
                module.layer_idx = index  # type: ignore[assignment]


def layers_path(model: nn.Module, layers: int) -> str:
    """Return the path of a model's decoder layers: the outermost list of modules that has as many entries.

    Raises:
        EngineError: `unsupported_model` where there is none.
    """
    lists = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    found: list[str] = [name for name, part in lists if len(part) == layers]
    if not found:
        raise EngineError("unsupported_model", f"{type(model).__name__} has no list of {layers} decoder layers")
    return min(found, key=lambda name: name.count("."))


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


def load_decoder(
    path: Path, device: str, dtype: torch.dtype | None = None, *, trust_remote_code: bool = False
) -> Decoder:
    """Load a model directory, whole, onto one device.

    Args:
        path: config, safetensors and tokenizer; nothing is fetched from anywhere.
        device: ``cpu`` or ``cuda``.
        dtype: what to compute in; by default float32 on CPU and the model's half format on CUDA.
        trust_remote_code: whether modelling code in the directory may run.

    Raises:
        EngineError: `unsupported_model` where an adapter lies beside the model.
    """
    if reason := adapter_refusal([file.name for file in path.iterdir()]):
        raise EngineError("unsupported_model", f"{path.name} is not loaded: {reason}")
    transformers_logging.disable_progress_bar()  # the engine tells its own progress
    stored = stored_dtype(path)
    model = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=dtype or compute_dtype(device, stored),
        local_files_only=True,
        trust_remote_code=trust_remote_code,
        use_safetensors=True,
    ).to(device)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    return Decoder(model, config, tokenizer, stored)
