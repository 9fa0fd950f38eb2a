"""What scoring, capture, evaluation and the proof ask of a model: its hidden states, wherever its weights are.

Two answers: `worker.engine.decoder.Decoder` holds the whole model, `worker.engine.streamed.StreamedDecoder` one layer
at a time. They run the same operations on the same batches in the same dtype, so that on CPU their hidden states are
equal bit for bit. `worker.engine.execution` chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from app.core.architectures import Family
from worker.engine.head import Head

VisitWindow = Callable[[int, int, Tensor], None]
"""Called with a batch's first sequence, l, and h_l [batch, sequence, hidden]; copy what is to be kept."""

VisitLast = Callable[[str, int, Tensor], None]
"""Called with `dense` or `cut`, a batch's first sequence, and what the head is applied to [batch, sequence, hidden]."""


Layers = Sequence[tuple[int, int]]
"""Ranges [start, end) of layers, in order, with a layer between any two."""


class LayeredModel(Protocol):
    """A causal language model as its decoder layers, in evaluation mode and without gradients.

    Attributes:
        execution: how it runs.
        model: the transformers model; what is streamed has no weights in it.
        config: the parsed config.json.
        family: the entry of the table of families.
        tokenizer: the model's own.
        stored_dtype: what most of its weights are stored in.
    """

    execution: Literal["resident", "streamed"]
    model: nn.Module
    config: dict[str, Any]
    family: Family
    tokenizer: Any
    stored_dtype: torch.dtype

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""

    @property
    def layer_count(self) -> int:
        """The number of decoder layers, L."""

    def visit_windows(
        self,
        windows: Tensor,
        batch_size: int,
        visit: VisitWindow,
        *,
        at: Collection[int] | None = None,
        together: bool = False,
    ) -> None:
        """Run the layers that are needed on token windows [sequences, length] and call ``visit(first, l, h_l)``.

        h_0 is the input of layer 0, h_l the residual stream after layer l - 1, h_L the one BEFORE the final norm. For
        each batch l rises; batches may take turns (resident: one after the other; streamed: layer by layer).

        Args:
            windows: token ids without padding.
            batch_size: sequences at a time.
            visit: see `VisitWindow`.
            at: which l are wanted; all of 0..L where None.
            together: finish with one batch before the next begins.

        Raises:
            EngineError: `disk_full` where hidden states have to be put aside and do not fit.
        """

    def last_states(self, windows: Tensor, batch_size: int, visit: VisitLast, *, cut: Layers | None = None) -> None:
        """Run the whole model on token windows [sequences, length], without the head.

        Args:
            windows: token ids without padding.
            batch_size: sequences at a time.
            visit: see `VisitLast`.
            cut: run the model without these layers too; what both share is computed once.
        """

    def head(self) -> AbstractContextManager[Head]:
        """Have the language-model head until the context ends."""

    def logits(self, input_ids: Tensor) -> Tensor:
        """Return the logits [batch, sequence, vocabulary] of ids without padding."""

    def layer(self, index: int) -> nn.Module:
        """Return a copy of a decoder layer with its weights, the caller's to change."""

    def layer_arguments(self, index: int, batch: int, length: int) -> dict[str, Any]:
        """Return what layer `index` is given beside the hidden states, for a batch without padding."""

    def with_layers(self, start: int, end: int, block: nn.Module | None = None) -> AbstractContextManager[None]:
        """Take layers [start, end) out, and put `block` in their place, until the context ends.

        Contexts nest; the numbers are those of the model as it stands. What is streamed heeds this in `logits` only.
        """

    def rounded(self, dtype: torch.dtype) -> AbstractContextManager[None]:
        """Compute with weights rounded to `dtype` until the context ends."""


@contextmanager
def without(model: LayeredModel, layers: Layers) -> Iterator[None]:
    """Take layers out of a model, with nothing in their place, until the context ends."""
    with ExitStack() as swapped:
        for start, end in reversed(layers):  # from the back, so that the numbers in front stay
            swapped.enter_context(model.with_layers(start, end))
        yield
