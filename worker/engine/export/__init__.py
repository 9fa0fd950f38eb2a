"""The forms in which a replacement is written: a stock architecture, a native layer, or custom code with auto_map."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from app.core.architectures import Config, Family, Shapes, kind_refusal
from worker.engine.errors import EngineError
from worker.engine.export import custom_code, stock
from worker.engine.export.insertion import Insertion, Window, joined
from worker.engine.recipe import Format, Kind

__all__ = ["Insertion", "Window", "insertion_of", "joined"]


def insertion_of(
    family: Family,
    config: Config,
    window: Window,
    *,
    kind: Kind,
    fmt: Format,
    replacement: Mapping[str, torch.Tensor],
    stored: Shapes,
) -> Insertion:
    """Return what takes the window's place, for a trained replacement of `kind` written in format `fmt`.

    `replacement` is empty for `none`; `stored` are the tensors of the window's first layer in the source, by their
    names relative to it. Raises EngineError `bad_window`, `replacement_refused`, `native_form_refused` or
    `bad_replacement`.
    """
    if window.kept < 1:
        raise EngineError("bad_window", "at least one layer must stay; choose a smaller window")
    if kind == "none":
        return stock.nothing()
    if reason := kind_refusal(config, kind):
        raise EngineError("replacement_refused", reason)
    if not replacement:
        raise EngineError("bad_replacement", f"no trained tensors for the {kind} replacement; run the train stage")
    if kind == "layer":
        return stock.layers(family, config, window, replacement, stored)
    if kind == "linear_merged":
        return stock.merged(family, config, window, replacement, stored)
    if fmt == "native":
        return stock.native_block(family, config, window, kind, replacement, stored)
    return custom_code.custom_block(family, config, window, kind, replacement)
