"""What a job needs of a GPU's memory, told before any work from the sizes that its plan knows.

Two numbers. *Whole*: all weights in the half format that GPUs compute in, and beside them the largest of what a stage
puts there. *In layers*: two layers instead of all, for a run that reads the model layer by layer. Both are the least
that a run gets by with: where there is more room, larger batches and the pruned model beside the dense one take it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.core import architectures
from app.core.architectures import BlockKind, Config
from app.core.plan import FIT_BYTES_PER_NUMBER, TRAINING_BYTES_PER_PARAMETER
from app.core.selection import ParameterCounts

WEIGHT_BYTES: Final = 2
"""Of a number in the half format that GPUs compute in, whatever is stored."""

_CONTEXT_BYTES: Final = 500_000_000  # CUDA's context and the allocator's slack
_WORKING_BYTES: Final = 512 << 20  # states of one batch: `WORKING_ROOM` of worker.engine.execution
_LAYERS_AT_ONCE: Final = 2  # one computes while the next is read
_BACKWARD_BYTES_PER_STATE: Final = 34  # kept for the backward pass, per token, layer and width: arXiv 2205.05198, 4.1
_LOGIT_BYTES: Final = 10  # a logit in the half format, in float32, and its gradient

_MOST: Final = 1 << 62  # what a database's integer holds; a config may claim any size


@dataclass(frozen=True)
class DeviceMemory:
    """The least memory of a GPU, in bytes, with the model whole in it and read layer by layer."""

    whole: int
    in_layers: int

    def required(self, *, must_be_whole: bool, largest: int) -> int:
        """Return the memory of the cards that a job is for.

        A model that fits the largest card whole waits for a card that holds it whole, because only such a run measures
        speeds and writes sample texts: what a report holds must not depend on which card was free. A larger one runs
        in layers, on the largest cards.

        Args:
            must_be_whole: the job asks for what a run in layers cannot do.
            largest: memory of the largest card that there is.
        """
        whole = must_be_whole or self.whole <= largest
        return min(_MOST, self.whole if whole else max(self.in_layers, largest))


def device_memory(
    config: Config,
    counts: ParameterCounts,
    kind: BlockKind,
    added_parameters: int,
    *,
    through_model: bool = False,
    length: int = 0,
) -> DeviceMemory:
    """Count what a job needs of a GPU.

    Args:
        config: parsed config.json.
        counts: parameters of the dense model.
        kind: the replacement.
        added_parameters: of one replacement.
        through_model: training runs through the whole model (healing, or a loss on logits), one sequence at a time if
            need be; then what the backward pass keeps of it counts.
        length: tokens of a sequence.
    """
    hidden = architectures.hidden_size(config)
    trained = added_parameters * TRAINING_BYTES_PER_PARAMETER
    fitted = hidden**2 * FIT_BYTES_PER_NUMBER if kind in architectures.FITTED_KINDS else 0
    beside = max(_WORKING_BYTES, trained, fitted)
    if through_model:
        vocabulary = config.get("vocab_size")
        logits = max(0, vocabulary) * _LOGIT_BYTES if isinstance(vocabulary, int) else 0
        kept = length * (len(counts.per_layer) * hidden * _BACKWARD_BYTES_PER_STATE + logits)
        beside = max(beside, trained + kept)
    at_once = _LAYERS_AT_ONCE * max(counts.per_layer)
    return DeviceMemory(
        whole=_CONTEXT_BYTES + counts.dense * WEIGHT_BYTES + beside,
        in_layers=_CONTEXT_BYTES + at_once * WEIGHT_BYTES + beside,
    )


CARDS: Final = {
    8: 8_000_000_000,
    12: 12_300_000_000,
    16: 15_600_000_000,
    24: 23_500_000_000,
    32: 33_500_000_000,
    40: 42_000_000_000,
    48: 47_500_000_000,
    80: 84_500_000_000,
    96: 99_000_000_000,
    141: 149_000_000_000,
    192: 190_000_000_000,
}
"""Gigabytes that GPUs are sold with, and the bytes that every such one leaves to programs. Some count gibibytes, as the
A100 and H100; others lose a sixteenth to error correction, as the T4, L4 and L40S."""

_LEFT_OF_OTHERS: Final = 0.97


def card_bytes(gigabytes: int) -> int:
    """Return what a card that is sold with so many gigabytes leaves to programs at least, in bytes."""
    return CARDS.get(gigabytes, int(gigabytes * 1e9 * _LEFT_OF_OTHERS))


def class_floor(memory_bytes: int) -> int:
    """Return the memory that jobs are taken for with so many bytes: that of the largest class which fits into them.

    Claims and queues would draw the line at different places otherwise, and a job between the two would wait for ever.
    Above the largest card there is one class, and the bytes themselves count.

    Raises:
        ValueError: less than the smallest class.
    """
    fitting = [has for has in CARDS.values() if has <= memory_bytes]
    if not fitting:
        smallest = min(CARDS.values())
        raise ValueError(f"{memory_bytes:,} bytes are less than the smallest class of jobs has, {smallest:,}")
    return memory_bytes if memory_bytes > max(CARDS.values()) else max(fitting)


LARGEST_WORKER_MEMORY: Final = card_bytes(80)
"""Where nobody says what the largest card has: that of an A100 or H100."""
