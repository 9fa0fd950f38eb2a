"""What the fetch stage promises: a broken model is found at once, and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.architectures import FAMILIES, dense_parameters
from tests.unit.worker.engine.recipes import make_recipe, recipe_json
from tests.unit.worker.engine.tiny_models import save_model
from worker.engine import fetch
from worker.engine.context import StageContext
from worker.engine.errors import EngineError
from worker.engine.events import silent


def context_for(model: Path, workspace: Path) -> StageContext:
    return StageContext(make_recipe(model, None), workspace, workspace, silent(), "cpu")


@pytest.fixture
def model(tiny_directory: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_directory("llama"), tmp_path / "model"))


def failure(model: Path, workspace: Path) -> EngineError:
    with pytest.raises(EngineError) as caught:
        fetch.run(context_for(model, workspace))
    assert not (workspace / fetch.OUTPUT).exists()
    return caught.value


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_headers_and_formula_count_the_same_parameters(model_type: str, tied: bool, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", model_type, tie_word_embeddings=tied, shard_bytes=8_000)
    fetch.run(context_for(model, tmp_path))
    found = json.loads((tmp_path / fetch.OUTPUT).read_text())
    assert found["parameters"] == dense_parameters(json.loads((model / "config.json").read_text()))
    assert len(set(found["per_layer_parameters"])) == 1


def test_the_hash_follows_the_files_and_not_their_place(model: Path, tmp_path: Path) -> None:
    def digest(directory: Path) -> str:
        fetch.run(context_for(directory, tmp_path))
        return str(json.loads((tmp_path / fetch.OUTPUT).read_text())["hash"])

    first = digest(model)
    moved = model.rename(tmp_path / "elsewhere")
    assert digest(moved) == first
    (moved / "config.json").write_text((moved / "config.json").read_text() + " ")
    assert digest(moved) != first


@pytest.mark.parametrize("missing", [1, 100])
def test_a_truncated_file_is_named(model: Path, tmp_path: Path, missing: int) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-missing])
    error = failure(model, tmp_path)
    assert error.code == "corrupt_model"
    assert "model.safetensors" in error.detail


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "llama", shard_bytes=8_000)
    shard = sorted(model.glob("model-*.safetensors"))[1]
    shard.unlink()
    error = failure(model, tmp_path)
    assert error.code == "corrupt_model"
    assert shard.name in error.detail


def test_pickled_weights_alone_are_refused_with_the_reason(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    error = failure(model, tmp_path)
    assert error.code == "no_safetensors"
    assert "pytorch_model.bin, a pickle" in error.detail
    assert "safe_serialization=True" in error.detail


def test_an_unsupported_family_is_refused_with_the_supported_ones(model: Path, tmp_path: Path) -> None:
    (model / "config.json").write_text('{"model_type": "mamba"}')
    error = failure(model, tmp_path)
    assert error.code == "unsupported_family"
    assert "llama, mistral, qwen2, qwen3, opt, gpt_neox" in error.detail


def change_config(model: Path, **fields: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | fields))


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"quantization_config": {"quant_method": "awq"}}, "unsupported_model", "awq"),
        ({"num_kv_shared_layers": 2}, "unsupported_model", "num_kv_shared_layers"),
        ({"layer_types": ["full_attention"]}, "bad_config", "one entry per layer"),
        ({"model_type": "jamba"}, "unsupported_family", "recurrent state"),
        ({"text_config": {"model_type": "llama"}, "model_type": "llava"}, "unsupported_family", "multimodal"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_the_reason(
    model: Path, tmp_path: Path, fields: dict[str, object], code: str, reason: str
) -> None:
    change_config(model, **fields)
    error = failure(model, tmp_path)
    assert error.code == code
    assert reason in error.detail


def test_a_block_that_the_family_has_no_form_for_is_refused(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "mixtral")
    for kind in ("swiglu", "ffn"):
        changes = recipe_json(model, None)["replacement"] | {"kind": kind}
        recipe = make_recipe(model, None, replacement=changes)
        context = StageContext(recipe, tmp_path, tmp_path, silent(), "cpu")
        with pytest.raises(EngineError, match="mixture of experts") as caught:
            fetch.run(context)
        assert caught.value.code == "replacement_refused"


@pytest.mark.parametrize("content", ["", "{", "[1]", "\ud800".encode("utf-8", "surrogatepass")])
def test_a_config_that_is_no_object_is_refused(model: Path, tmp_path: Path, content: str | bytes) -> None:
    (model / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    error = failure(model, tmp_path)
    assert error.code == "bad_model"
    assert "config.json" in error.detail


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "nowhere" in failure(tmp_path / "nowhere", tmp_path).detail


def test_weights_without_some_layer_are_refused_by_its_number(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 7}))
    assert "decoder layer 5" in failure(model, tmp_path).detail


@pytest.mark.parametrize("own", [{"streamline": {}}, {"auto_map": {"AutoModelForCausalLM": "modeling.Own"}}])
def test_a_model_with_code_of_its_own_is_refused(model: Path, tmp_path: Path, own: dict[str, object]) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | own))
    assert failure(model, tmp_path).code == "unsupported_model"
