"""A pickle anywhere that the engine looks is refused or left alone: unpickling it would make a directory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.canary import Canary
from tests.unit.worker.engine.recipes import recipe_json, write_text
from tests.unit.worker.engine.test_pipeline import TO_CHECKPOINT, WITHOUT_VERIFY, checkpoint_hashes, run
from worker.engine.decoder import load_decoder
from worker.engine.errors import EngineError
from worker.engine.recipe import Recipe
from worker.engine.verification import PROBE

PICKLED = ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt", "tokenizer.pkl", "model.pt")


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "somebody-unpickled-it")


@pytest.fixture
def model(tiny_directory: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_directory("llama"), tmp_path / "model"))


def recipe(model: Path, tmp_path: Path, **changes: Any) -> Recipe:
    return Recipe.from_json(recipe_json(model, write_text(tmp_path / "words.jsonl"), **changes))


def test_the_canary_sings_when_it_is_unpickled(canary: Canary) -> None:
    for content in (canary.pickle, canary.torch_file):
        code = "import pickle, sys, zipfile, io\nb = sys.stdin.buffer.read()\nz = io.BytesIO(b)\n"
        code += "b = zipfile.ZipFile(z).read('archive/data.pkl') if zipfile.is_zipfile(z) else b\npickle.loads(b)"
        subprocess.run([sys.executable, "-c", code], input=content, check=True)
        assert canary.sang
        canary.sign.rmdir()


def test_pickles_beside_the_weights_are_left_alone(canary: Canary, model: Path, tmp_path: Path) -> None:
    for name in PICKLED:
        (model / name).write_bytes(canary.torch_file)
    workspace = tmp_path / "run"
    run(recipe(model, tmp_path), workspace, WITHOUT_VERIFY)
    assert not canary.sang
    assert not [path.name for path in (workspace / "checkpoint").iterdir() if path.name in PICKLED]


def test_an_adapters_configuration_takes_the_engine_to_no_other_model(
    canary: Canary, model: Path, tmp_path: Path, tiny_directory: Callable[[str], Path]
) -> None:
    """The library would load what the file names as its base, from wherever that lies, and the adapter over it."""
    (model / "adapter_model.bin").write_bytes(canary.torch_file)
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(tiny_directory("mistral")), "r": 2}
    (model / "adapter_config.json").write_text(json.dumps(adapter))
    for refused in (
        lambda: run(recipe(model, tmp_path), tmp_path / "run", TO_CHECKPOINT),
        lambda: load_decoder(model, "cpu"),
    ):
        with pytest.raises(EngineError, match="merge the adapter") as caught:
            refused()
        assert (caught.value.code, canary.sang) == ("unsupported_model", False)


@pytest.mark.parametrize("form", ["pickle", "torch_file"])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("model.safetensors", "corrupt_model"),
        ("pytorch_model.bin", "no_safetensors"),
        ("model.safetensors.index.json", "corrupt_model"),
        ("config.json", "bad_model"),
    ],
)
def test_a_pickle_in_place_of_a_models_file_is_refused(
    canary: Canary, model: Path, tmp_path: Path, name: str, code: str, form: str
) -> None:
    content: bytes = getattr(canary, form)
    if name == "pytorch_model.bin":
        (model / "model.safetensors").unlink()
    if name == "model.safetensors.index.json":  # names a pickle as the file of the weights
        (model / "model.safetensors").unlink()
        (model / "weights.safetensors").write_bytes(content)
        content = json.dumps({"weight_map": {"lm_head.weight": "weights.safetensors"}}).encode()
    (model / name).write_bytes(content)
    with pytest.raises(EngineError) as caught:
        run(recipe(model, tmp_path), tmp_path / "run", TO_CHECKPOINT)
    assert (caught.value.code, canary.sang) == (code, False)


def test_a_pickle_in_place_of_a_tokenizer_or_a_text_is_refused(canary: Canary, model: Path, tmp_path: Path) -> None:
    wanted = recipe(model, tmp_path)
    for path in (tmp_path / "words.jsonl", model / "tokenizer.json"):
        before = path.read_bytes()
        path.write_bytes(canary.pickle)
        with pytest.raises(Exception, match="words|tokenizer|UTF|JSON|expected|column"):  # the library has its own
            run(wanted, tmp_path / "run", TO_CHECKPOINT)
        assert not canary.sang
        path.write_bytes(before)


def test_pickles_in_place_of_what_a_killed_run_left_behind_are_not_read(
    canary: Canary, model: Path, tmp_path: Path
) -> None:
    """Checkpoints of training, activations, trained layers, updates, the dense model's answers in the cache."""
    healing = {"kind": "lora", "rank": 2, "alpha": 4.0, "epochs": 1, "learning_rate": 1e-3, "tokens": 64}
    text = recipe_json(model, write_text(tmp_path / "judged.jsonl", seed=1))["calibration"]
    wanted = recipe(model, tmp_path, healing=healing | {"batch_size": 2}, evaluation=[text])
    workspace = tmp_path / "run"
    run(wanted, workspace, WITHOUT_VERIFY)
    hashes = checkpoint_hashes(workspace)
    places = [*workspace.rglob("*.safetensors"), *(tmp_path / "cache").rglob("*.safetensors")]
    assert len({path.name for path in places} & {"replacement.safetensors", "healing.safetensors"}) == 2
    assert any("cache" in path.parts for path in places)
    # Where the states of training lie while it runs, and the hidden states that it reads.
    places += [workspace / name for name in ("training/0.safetensors", "training/1.safetensors")]
    places += [workspace / name for name in ("healing/lora.safetensors", "tmp/activations-00000.bin", PROBE, *PICKLED)]
    for path in places:
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(canary.pickle)
    run(wanted, workspace, WITHOUT_VERIFY)
    assert not canary.sang
    assert checkpoint_hashes(workspace) == hashes, "what is damaged is made again"
