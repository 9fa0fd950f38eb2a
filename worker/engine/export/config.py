"""config.json of the written checkpoint: every field that lists or counts layers follows the cut."""

from __future__ import annotations

from typing import Any

from app.core.architectures import Config, Family
from worker.engine.errors import EngineError
from worker.engine.export.insertion import Insertion, Window
from worker.engine.recipe import Dtype

_WINDOW_LAYERS_DEFAULT = 28  # Qwen2Config and Qwen3Config in transformers


def cut_config(
    family: Family, config: Config, window: Window, insertion: Insertion, *, dtype: Dtype | None
) -> dict[str, Any]:
    """Return the config of the checkpoint without the window's layers and with the insertion.

    Inserted layers take over the per-layer settings of the window's first layers, whose places they have. Raises
    EngineError `bad_config` where a per-layer list does not have one entry per layer.
    """
    cut = dict(config)
    cut[family.layer_count_field] = window.kept + insertion.layers
    for name in family.per_layer_fields:
        values = config.get(name)
        if values is None:
            continue
        if not isinstance(values, list) or len(values) != window.layers:
            raise EngineError("bad_config", f"config.json: {name} must list one entry per layer ({window.layers})")
        cut[name] = values[: window.start + insertion.layers] + values[window.end :]
    _cut_full_attention_count(config, cut, window, insertion)
    if dtype is not None:
        cut["torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"] = dtype
    # It names code files that are not copied; a custom block brings an auto_map of its own.
    cut.pop("auto_map", None)
    cut.update(insertion.config)
    return cut


def _cut_full_attention_count(config: Config, cut: dict[str, Any], window: Window, insertion: Insertion) -> None:
    """Qwen2 and Qwen3: the first `max_window_layers` layers attend in full, the rest by sliding window."""
    if "max_window_layers" not in config and not config.get("use_sliding_window"):
        return
    full = int(config.get("max_window_layers", _WINDOW_LAYERS_DEFAULT))
    cut["max_window_layers"] = full - max(0, min(window.end, full) - (window.start + insertion.layers))
