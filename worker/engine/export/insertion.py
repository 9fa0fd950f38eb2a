"""What a replacement becomes inside the written checkpoint: tensors, config fields and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Window:
    """The layers [start, end) of `layers` that go; `kept` are those that stay.

    `place` is where the window's first layer would lie in the written checkpoint, where windows in front are gone too.
    """

    start: int
    end: int
    layers: int
    place: int

    @property
    def size(self) -> int:
        """How many layers go."""
        return self.end - self.start

    @property
    def kept(self) -> int:
        """How many layers stay."""
        return self.layers - self.size


@dataclass(frozen=True)
class Insertion:
    """What is put in a window's place, or in the places of several.

    Attributes:
        layers: how many full decoder layers it has, each with a place of its own in the layer list.
        tensors: name in the written checkpoint -> tensor.
        overwritten: name in the written checkpoint of a tensor that stays -> what it holds from now on.
        copied: name in the written checkpoint -> (source layer, name relative to it), copied from the source as bytes.
        config: config fields that change because of it.
        files: further files of the checkpoint, name -> contents.
        renamed_head: the name that the head's tensors get, None = as in the source.
    """

    layers: int
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    overwritten: Mapping[str, torch.Tensor] = field(default_factory=dict)
    copied: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    renamed_head: str | None = None


def joined(insertions: Sequence[Insertion]) -> Insertion:
    """Return the insertions of several windows as one; no two have a tensor of the same name."""
    everything: dict[str, dict[str, Any]] = {}
    for name in ("tensors", "overwritten", "copied", "config", "files"):
        everything[name] = {key: value for insertion in insertions for key, value in getattr(insertion, name).items()}
    renamed = next(filter(None, (insertion.renamed_head for insertion in insertions)), None)
    return Insertion(sum(insertion.layers for insertion in insertions), renamed_head=renamed, **everything)
