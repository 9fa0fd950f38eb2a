"""Training pairs that are computed anew each time they are asked for, where storing them does not pay or does not fit.

Of one pass over the data nothing is read twice, and running the layers for each batch costs about what capturing would
have.
What is held out is looked at many times and stored all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from worker.engine.activation_store import ActivationStore, as_stored
from worker.engine.device import autocast, is_out_of_memory, sequences_at_once
from worker.engine.hidden_states import LayeredModel


class RecomputedStates:
    """Pairs (h_start, h_end) of token windows, by running layers 0 to end - 1 on those that are asked for."""

    reads_ahead = False

    def __init__(
        self, model: LayeredModel, windows: Tensor, window: tuple[int, int], held: ActivationStore, rows: Sequence[int]
    ) -> None:
        """Take what is needed to compute them.

        Args:
            model: the dense model, whole in memory.
            windows: token ids [sequences, length].
            window: h_start is the input of layer `start`, h_end the output of layer `end` - 1.
            held: the pairs of the sequences `rows`.
            rows: which of the windows are held out.
        """
        self._model, self._windows, self._window, self._held = model, windows, window, held
        self._held_rows = {row: place for place, row in enumerate(rows)}
        self._at_once = sequences_at_once(model.device.type, self.length)
        self.seconds = held.seconds

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def length(self) -> int:
        """Tokens per sequence."""
        return int(self._windows.shape[1])

    @property
    def stored_dtype(self) -> torch.dtype:
        """The dtype that the states are rounded to, as if they had been stored."""
        return self._model.stored_dtype

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Return (h_start, h_end) of some sequences, which may be none, each [batch, sequence, hidden] in float32.

        Raises:
            EngineError: `not_finite` where a hidden state is NaN or infinite.
            RuntimeError: out of memory; not even one sequence at a time fits.
        """
        if all(index in self._held_rows for index in indices):
            return self._held.batch([self._held_rows[index] for index in indices])
        while True:
            try:
                return self._computed(self._windows[indices])
            except RuntimeError as error:
                if not is_out_of_memory(error) or self._at_once == 1:
                    raise
                self._at_once //= 2

    def _computed(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        model, (start, end) = self._model, self._window
        states: dict[int, list[Tensor]] = {start: [], end: []}

        def keep(_: int, place: int, state: Tensor) -> None:
            states[place].append(as_stored(state, place, self.stored_dtype).float())

        with autocast(model.device.type, self.stored_dtype, model.dtype):
            model.visit_windows(windows, self._at_once, keep, at={start, end})
        before, after = (torch.cat(states[place]) for place in (start, end))
        return before, after
