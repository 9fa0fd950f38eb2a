"""Where a checkpoint keeps its decoder layers and what each of them holds, read from the headers alone.

The layer list is the part of the tensors' names that is followed by a running number 0..L-1 (``model.layers.7.``); no
table of names is needed for it. Buffers of old checkpoints and heads that predict further tokens are nobody's layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from app.core.architectures import Config, Family, Shapes, family_of, layer_count, tied_embeddings
from app.core.safetensors_file import is_buffer

_NUMBERED = re.compile(r"(?P<list>.*?)\.(?P<number>\d+)\.(?P<rest>.+)")
_FURTHER_TOKENS = "mtp."


@dataclass(frozen=True)
class Layout:
    """The tensors of a checkpoint, by where they belong; names and shapes as they are stored.

    Attributes:
        layers: the layer list's path, in front of the running number.
        layer_shapes: for each decoder layer, name relative to it -> shape.
        outside: name -> shape of what belongs to no layer, a tied head's copy left out.
    """

    layers: str
    layer_shapes: tuple[Shapes, ...]
    outside: Shapes

    @property
    def per_layer(self) -> tuple[int, ...]:
        """Parameters of each decoder layer."""
        return tuple(_numbers(shapes) for shapes in self.layer_shapes)

    @property
    def outside_parameters(self) -> int:
        """Parameters outside of the layers, tied embeddings once."""
        return _numbers(self.outside)


def discover(config: Config, shapes: Mapping[str, tuple[int, ...]]) -> Layout:
    """Return the layout of a checkpoint whose tensors have these names and shapes.

    Layers of which nothing is stored are empty; `layers` is the family's own path where no list is found at all.
    """
    layers = layer_list(config, shapes)
    inside: tuple[Shapes, ...] = tuple({} for _ in range(layer_count(config)))
    outside: Shapes = {}
    # GPT-NeoX' head is stored as `embed_out` or, by newer libraries, as `lm_head`.
    heads = {f"{family_of(config).head}.weight", "lm_head.weight"} if tied_embeddings(config) else set()
    for name, shape in shapes.items():
        if name in heads or is_buffer(name) or predicts_further_tokens(config, layers, name):
            continue
        layer, rest = layer_of(layers, name)
        if layer is not None and layer < len(inside):
            inside[layer][rest] = shape
        else:
            outside[name] = shape
    return Layout(layers, inside, outside)


def located(family: Family, layout: Layout) -> Family:
    """Return a family with the paths that a checkpoint of it has; those of the table are known."""
    if family.has_formula:
        return family
    matrices = [name for name, shape in layout.outside.items() if len(shape) > 1 and not name.startswith(family.head)]
    # Nothing else outside of the layers has as many rows as the vocabulary; a head has another name.
    embedding = max(matrices, key=lambda name: layout.outside[name][0], default=f"{family.embedding}.weight")
    return replace(family, layers=layout.layers, embedding=embedding.removesuffix(".weight"))


def layer_list(config: Config, names: Iterable[str]) -> str:
    """Return the path of the decoder layers' list: the one with the most of the numbers 0..L-1, the first of equals.

    A family of the table has a known path; a checkpoint of the bare model may leave out the first part of it.
    """
    family, layers = family_of(config), layer_count(config)
    found: dict[str, set[int]] = {}
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            found.setdefault(match["list"], set()).add(int(match["number"]))
    if family.has_formula:
        found = {path: numbers for path, numbers in found.items() if f".{family.layers}".endswith(f".{path}")}
    return max(found, key=lambda path: len(found[path] & set(range(layers))), default=family.layers)


def layer_of(layers: str, name: str) -> tuple[int | None, str]:
    """Return a tensor's layer and its name relative to it; None and the name where it lies in no layer."""
    number, _, rest = name.removeprefix(f"{layers}.").partition(".")
    if name.startswith(f"{layers}.") and number.isdigit() and rest:
        return int(number), rest
    return None, name


def predicts_further_tokens(config: Config, layers: str, name: str) -> bool:
    """Whether a tensor belongs to a head that predicts the tokens after the next one (DeepSeek-V3).

    Such heads stand behind the last layer and read its output; transformers does not load them, and a result is
    written without them.
    """
    if not config.get("num_nextn_predict_layers"):
        return False
    layer, _ = layer_of(layers, name)
    return name.startswith(_FURTHER_TOKENS) or (layer is not None and layer >= layer_count(config))


def _numbers(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
