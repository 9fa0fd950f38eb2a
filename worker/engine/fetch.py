"""The fetch stage: is this directory a model that can be worked with? Found out before hours are spent on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.core.architectures import ArchitectureError, family_of, layer_count, refuse_uncuttable
from app.core.layer_fields import cut_layer_fields
from app.core.refusals import adapter_refusal
from app.core.safetensors_file import Checkpoint, CorruptSafetensors, read_checkpoint
from app.core.selection import ParameterCounts, SelectionError, window_size
from worker.engine.context import StageContext, sha256_of
from worker.engine.errors import EngineError
from worker.engine.ledger import sha256_of_file

OUTPUT = "model.json"
_NEEDED = (".json", ".safetensors", ".model", ".txt", ".jinja")


def read_config(model: Path) -> dict[str, Any]:
    """Return the parsed config.json of a model directory.

    Raises:
        EngineError: `bad_model` where it is missing or no JSON object; `unsupported_family`, with the supported ones.
    """
    path = model / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EngineError("bad_model", f"{path} cannot be read ({error.strerror}); name a model directory") from error
    except ValueError as error:
        raise EngineError("bad_model", f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise EngineError("bad_model", f"{path} must hold a JSON object")
    try:
        family_of(config)
    except ArchitectureError as error:
        raise EngineError(error.code, str(error)) from error
    return config


def read_weights(model: Path) -> Checkpoint:
    """Return the validated headers of a model directory's safetensors.

    Raises:
        EngineError: `no_safetensors`; `corrupt_model`, naming the file, where a header or a length is wrong.
    """
    require_safetensors(model)
    try:
        return read_checkpoint(model)
    except CorruptSafetensors as error:
        raise EngineError("corrupt_model", f"{error.file}: {error.reason}; fetch the file again") from error
    except OSError as error:
        # Not every OSError is the system's own: those of this project have a sentence and no file name.
        reason = str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
        raise EngineError("corrupt_model", reason) from error


def require_safetensors(model: Path) -> None:
    """Refuse a model directory without safetensors, by the names of its files alone.

    Raises:
        EngineError: `no_safetensors`.
    """
    if not any(model.glob("*.safetensors")):
        pickled = sorted(path.name for path in model.glob("pytorch_model*.bin"))
        reason = f"only {pickled[0]}, a pickle that can run code when it is opened" if pickled else "no weights"
        raise EngineError(
            "no_safetensors",
            f"{model} has {reason}; convert the model with save_pretrained(..., safe_serialization=True) and retry",
        )


def run(context: StageContext) -> None:
    """Validate the model directory and write `model.json`: its files' hashes and its parameters.

    Raises:
        EngineError: see `read_config` and `read_weights`; `unsupported_model` for code of its own; `bad_target`
            where the target does not fit this model.
    """
    config = read_config(context.model)
    if reason := adapter_refusal([file.name for file in context.model.iterdir()]):
        raise EngineError("unsupported_model", f"the model cannot be compressed: {reason}")
    try:
        refuse_uncuttable(config)
        cut_layer_fields(config, range(layer_count(config)))  # lists that are not lists of its layers
    except ArchitectureError as error:
        raise EngineError(error.code, str(error)) from error
    checkpoint = read_weights(context.model)
    sizes = {name: entry.elements for name, entry in checkpoint.entries()}
    recipe = context.recipe
    try:
        counts = ParameterCounts.from_tensors(config, sizes)
        if 0 in counts.per_layer:
            raise EngineError(
                "corrupt_model",
                f"the weights hold no tensor of decoder layer {counts.per_layer.index(0)}; fetch them again",
            )
        window_size(
            config, recipe.target, recipe.replacement.kind, recipe.output.format, counts, recipe.replacement.layers,
            recipe.selection,
        )  # fmt: skip
    except (ArchitectureError, SelectionError) as error:
        raise EngineError(error.code, str(error)) from error
    paths = sorted(path for path in context.model.iterdir() if path.is_file() and path.suffix in _NEEDED)
    files = {}
    for done, path in enumerate(paths, start=1):
        files[path.name] = {"size": path.stat().st_size, "sha256": sha256_of_file(path)}
        context.emit.progress(done, len(paths), "files")
    if config.get("num_nextn_predict_layers"):
        context.emit.log("the heads that predict further tokens (num_nextn_predict_layers) are left out of the result")
    context.write_json(
        OUTPUT,
        {
            "name": recipe.model.name,
            "revision": recipe.model.revision,
            "model_type": config["model_type"],
            "files": files,
            "hash": sha256_of(files),
            "per_layer_parameters": list(counts.per_layer),
            "outside_parameters": counts.outside,
            "parameters": counts.dense,
        },
    )
