"""config.json of the written checkpoint: every field that lists or counts layers follows the cut."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from app.core.architectures import ArchitectureError, Config, field_name, layer_count
from app.core.layer_fields import PERIODS, RULES, UNIFORM, cut_layer_fields, kept_beside
from worker.engine.errors import EngineError
from worker.engine.export.insertion import Insertion, Window
from worker.engine.recipe import Dtype


def cut_config(config: Config, swaps: Sequence[tuple[Window, Insertion]], *, dtype: Dtype | None) -> dict[str, Any]:
    """Return the config of the checkpoint without the windows' layers and with what is put in for each.

    Inserted layers take over the per-layer settings of their window's first layers, whose places they have. Raises
    EngineError `bad_config` where a per-layer list does not have one entry per layer, or a pattern cannot be cut.
    """
    unlisted = _unlisted(config)
    windows = [(window.start, window.end, insertion.layers) for window, insertion in swaps]
    kept = kept_beside(windows, layer_count(config))
    try:
        changed = cut_layer_fields({**config, **unlisted}, kept)
    except ArchitectureError as error:
        raise EngineError(error.code, str(error)) from error
    cut = {**config, field_name(config, "num_hidden_layers"): len(kept)}
    cut |= {name: value for name, value in changed.items() if name in config or value != unlisted.get(name)}
    cut = {name: value for name, value in cut.items() if value is not None or changed.get(name, 0) is not None}
    if dtype is not None:
        cut["torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"] = dtype
    # It names code files that are not copied; a custom block brings an auto_map of its own.
    cut.pop("auto_map", None)
    for _, insertion in swaps:
        cut.update(insertion.config)
    return cut


def _unlisted(config: Config) -> dict[str, Any]:
    """Return the per-layer settings that config.json leaves out, as the library fills them in.

    Where all layers are alike they are alike in the result too, and nothing needs to be written down.
    """
    if config.get("model_type") in UNIFORM:
        return {}
    # Only where there may be some: with what the library imports for it, assembly would weigh half as much again.
    from transformers import AutoConfig

    built = AutoConfig.for_model(**copy.deepcopy(dict(config))).to_dict()  # it fills in nested fields where they lie
    spoken_of = {PERIODS[name] for name in config if name in PERIODS}
    return {
        name: built[name]
        for name in RULES.keys() - PERIODS.keys()
        if config.get(name) is None
        and built.get(name) is not None
        and (name in spoken_of or not _alike(built[name], layer_count(config)))
    }


def _alike(value: Any, layers: int) -> bool:
    return isinstance(value, list) and (len(set(value)) <= 1 or value == list(range(layers)))
