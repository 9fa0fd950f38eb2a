"""Replacements that leave a stock architecture: nothing, decoder layers, a folded map, or a block in its native form.

The native form of a block is a full decoder layer whose attention is switched off by a zero output projection, so that
only its MLP half h + MLP(norm(h)) is left. That is exact for pre-norm layers, sequential or parallel, and impossible
where a norm follows the sum (post-norm).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from app.core.architectures import Config, Family, Shapes, kind_refusal, native_refusal
from app.core.families import Linear
from worker.engine.errors import EngineError
from worker.engine.export.insertion import Insertion, Window
from worker.engine.export.stored_names import as_stored
from worker.engine.recipe import Kind


def nothing() -> Insertion:
    """Return the insertion of `none`: the layers are just cut."""
    return Insertion(layers=0)


def layers(
    family: Family, config: Config, window: Window, replacement: Mapping[str, torch.Tensor], stored: Shapes
) -> Insertion:
    """Return the insertion of trained decoder layers, in the places of the window's first layers.

    One layer's tensors have the layer's own names, those of several their number in front. `stored` are the tensors of
    the window's first layer in the source. Raises EngineError `bad_replacement` where the replacement's are not the
    same.
    """
    numbers = {name.partition(".")[0] for name in replacement}
    several = all(number.isdigit() for number in numbers)
    if len(numbers) > window.size and several:
        raise EngineError("bad_replacement", f"{len(numbers)} trained layers do not fit a window of {window.size}")
    tensors: dict[str, torch.Tensor] = {}
    for number in sorted(map(int, numbers)) if several else [0]:
        prefix = f"{number}." if several else ""
        own = {name.removeprefix(prefix): value for name, value in replacement.items() if name.startswith(prefix)}
        own = as_stored(config, window.start + number, own, stored)
        check_tensors(own, stored, "decoder layer")
        tensors |= {f"{family.layers}.{window.place + number}.{name}": value for name, value in own.items()}
    return Insertion(layers=len(numbers) if several else 1, tensors=tensors)


def merged(
    family: Family, config: Config, window: Window, replacement: Mapping[str, torch.Tensor], stored: Shapes
) -> Insertion:
    """Return the insertion of a map that is folded into the down projection of the layer in front of the window.

    `stored` are the tensors of the window's first layer, which is built alike. Raises EngineError `bad_window` where no
    layer is in front, `replacement_refused` where its family has no place for it, `bad_replacement` where the tensors
    are not those of its down projection.
    """
    if window.start == 0:
        raise EngineError("bad_window", "no layer is in front of the window to fold into; start at layer 1 or later")
    if reason := kind_refusal(config, "linear_merged"):
        raise EngineError("replacement_refused", reason)
    down = f"{family.mlp_down}."
    check_tensors(replacement, {n: shape for n, shape in stored.items() if n.startswith(down)}, "down projection")
    place = f"{family.layers}.{window.place - 1}"
    return Insertion(layers=0, overwritten={f"{place}.{name}": tensor for name, tensor in replacement.items()})


def native_block(
    family: Family, config: Config, window: Window, kind: Kind, replacement: Mapping[str, torch.Tensor], stored: Shapes
) -> Insertion:
    """Return the insertion of a `swiglu` or `ffn` block as a full decoder layer with its attention switched off.

    Queries, keys and values are those of the window's first layer: what they compute is multiplied by zero, and copies
    of real weights are certain to be finite. Raises EngineError `native_form_refused` with the reason where the family
    has no such layer, `bad_replacement` where the tensors do not fit it.
    """
    if reason := native_refusal(config, kind):
        raise EngineError("native_form_refused", reason)
    half = as_mlp_half(family, replacement) if kind == "ffn" else dict(replacement)
    place = f"{family.layers}.{window.place}"
    tensors: dict[str, torch.Tensor] = {}
    copied: dict[str, tuple[int, str]] = {}
    shapes = stored
    dtype = next(iter(half.values())).dtype
    for name, shape in shapes.items():
        if name in half:
            tensors[f"{place}.{name}"] = half.pop(name)
        elif name.startswith(f"{family.attention_output}."):
            tensors[f"{place}.{name}"] = torch.zeros(shape, dtype=dtype)
        else:
            copied[f"{place}.{name}"] = (window.start, name)
    if half:
        raise EngineError("bad_replacement", f"tensors that no {family.model_type} layer has: {', '.join(half)}")
    check_tensors(
        {name: tensors[f"{place}.{name}"] for name in shapes if f"{place}.{name}" in tensors},
        {name: shape for name, shape in shapes.items() if f"{place}.{name}" in tensors},
        "decoder layer",
    )
    return Insertion(layers=1, tensors=tensors, copied=copied)


def as_mlp_half(family: Family, replacement: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename an `ffn` block's tensors to those of the family's ungated MLP half; GPT-2 stores its maps transposed."""
    names = {"norm": family.mlp_norm, "up_proj": family.mlp_up, "down_proj": family.mlp_down}
    transposed = any(isinstance(module, Linear) and module.transposed for module in family.layer_modules)
    return {
        f"{names[module]}.{part}": tensor.t().contiguous() if transposed and tensor.ndim > 1 else tensor
        for name, tensor in replacement.items()
        for module, _, part in [name.rpartition(".")]
    }


def check_tensors(tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Raise EngineError `bad_replacement` unless `tensors` has exactly the names and shapes of `shapes`."""
    if missing := sorted(set(shapes) - set(tensors)):
        raise EngineError("bad_replacement", f"the trained {what} lacks {', '.join(missing)}; train it again")
    if extra := sorted(set(tensors) - set(shapes)):
        raise EngineError("bad_replacement", f"the trained {what} has the unknown tensors {', '.join(extra)}")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != tuple(shape):
            found = list(tensors[name].shape)
            raise EngineError("bad_replacement", f"{name} of the trained {what} is {found}, not {list(shape)}")
