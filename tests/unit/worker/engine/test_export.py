"""Written checkpoints compute what the swapped model computes, and generate the same tokens in every way."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.core.architectures import NativeFormRefused, native_refusal
from app.core.safetensors_file import SINGLE_FILE, parameter_count, read_checkpoint
from tests.unit.worker.engine.tiny_models import (
    CONFIGS,
    LAYERS,
    VOCABULARY,
    random_replacement,
    reference_logits,
    save_model,
)
from worker.engine.assembly import assemble
from worker.engine.errors import EngineError
from worker.engine.verification_script import Heard, compare_generation

WINDOWS = {"start": (0, 2), "middle": (1, 3), "end": (3, LAYERS)}
IDS = torch.tensor([[5, 9, 2, 33, 17, 41, 8, 8, 60, 23]])


@pytest.fixture(scope="module", autouse=True)
def own_module_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Modelling files that transformers copies go to a temporary place."""
    with pytest.MonkeyPatch.context() as patch:
        cache = str(tmp_path_factory.mktemp("modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", cache)
        patch.syspath_prepend(cache)
        yield


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small only wait for a second thread, on a busy machine for a long time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        (name, tied): save_model(root / f"{name}-{tied}", name, tie_word_embeddings=tied)
        for name in CONFIGS
        for tied in (False, True)
    }


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    heard = Heard()
    logger = logging.getLogger("transformers")
    logger.addHandler(heard)
    try:
        yield
    finally:
        logger.removeHandler(heard)
    assert heard.messages == []


def load(path: Path, *, trust: bool) -> Any:
    with no_warnings():
        model, info = AutoModelForCausalLM.from_pretrained(
            path, trust_remote_code=trust, dtype=torch.float32, output_loading_info=True
        )
    assert not any(info.values()), info
    return model.eval()


def write(source: Path, out: Path, window: tuple[int, int], kind: Any, fmt: Any = "auto") -> dict[str, torch.Tensor]:
    replacement = random_replacement(json.loads((source / "config.json").read_text()), kind)
    assemble(source, out, start=window[0], end=window[1], kind=kind, fmt=fmt, replacement=replacement)
    return replacement


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kind", ["ffn", "swiglu", "linear_residual"])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_block_with_custom_code_is_exact_and_generates_the_same_in_every_way(
    models: dict[tuple[str, bool], Path], tmp_path: Path, family: str, kind: str, window: str
) -> None:
    source = models[family, window == "middle"]
    replacement = write(source, tmp_path, WINDOWS[window], kind)
    model = load(tmp_path, trust=True)
    expected = reference_logits(source, IDS, *WINDOWS[window], kind, replacement)
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)
    assert model.config.num_hidden_layers == LAYERS - (WINDOWS[window][1] - WINDOWS[window][0])
    with torch.no_grad():
        found = compare_generation(model, [IDS[:, :7], IDS[:, 5:9]], [0] * 6, new=6)
    del found["in_memory"]
    assert len(found) == 5
    for way, result in found.items():
        assert result["same"] or result["largest_margin"] < 1e-4, way
    assert len({token for row in found["default"]["tokens"] for token in row}) > 1, "a constant would prove nothing"


@pytest.mark.parametrize("kind", ["none", "layer", "swiglu", "ffn"])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_stock_or_native_checkpoint_needs_no_custom_code_and_is_exact(
    models: dict[tuple[str, bool], Path], tmp_path: Path, family: str, kind: Any
) -> None:
    source = models[family, False]
    if native_refusal(json.loads((source / "config.json").read_text()), kind):
        with pytest.raises((EngineError, NativeFormRefused)):
            write(source, tmp_path / "out", WINDOWS["middle"], kind, "native")
        return
    for window in WINDOWS.values():
        replacement = write(source, tmp_path / "out", window, kind, "native")
        model = load(tmp_path / "out", trust=False)
        expected = reference_logits(source, IDS, *window, kind, replacement)
        with torch.no_grad():
            torch.testing.assert_close(model(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)
        assert type(model).__module__.startswith("transformers.")


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize(("kind", "layers"), [("linear_merged", 1), ("layer", 2)])
def test_merged_maps_and_several_layers_need_no_custom_code_and_are_exact(
    models: dict[tuple[str, bool], Path], tmp_path: Path, family: str, kind: Any, layers: int
) -> None:
    source = models[family, True]
    config = json.loads((source / "config.json").read_text())
    for name, (start, end) in {**WINDOWS, "start": (1, 3) if kind == "linear_merged" else (0, 3)}.items():
        replacement = random_replacement(config, kind, layers=layers)
        assemble(source, tmp_path / "out", start=start, end=end, kind=kind, replacement=replacement)
        model = load(tmp_path / "out", trust=False)
        expected = reference_logits(source, IDS, start, end, kind, replacement, layers)
        with torch.no_grad():
            torch.testing.assert_close(model(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("kind", ["layer", "ffn", "swiglu", "linear_residual"])
def test_a_post_norm_model_keeps_its_own_layer_and_runs_blocks_by_custom_code(tmp_path: Path, kind: str) -> None:
    source = save_model(tmp_path / "source", "opt", do_layer_norm_before=False, word_embed_proj_dim=8)
    replacement = write(source, tmp_path / "out", (1, 3), kind)
    model = load(tmp_path / "out", trust=kind != "layer")
    expected = reference_logits(source, IDS, 1, 3, kind, replacement)
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)


def test_sliding_layers_stay_with_their_weights(tmp_path: Path) -> None:
    types = ["full_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    source = save_model(
        tmp_path / "source", "qwen3", layer_types=types, use_sliding_window=True, sliding_window=4, max_window_layers=0
    )
    replacement = write(source, tmp_path / "out", (1, 3), "swiglu")
    model = load(tmp_path / "out", trust=True)
    assert model.config.layer_types == ["full_attention", "sliding_attention", "full_attention"]
    assert [layer.self_attn.sliding_window for layer in model.model.layers] == [None, 4, None]
    assert replacement


def test_a_custom_checkpoint_saved_again_by_its_user_still_loads(
    models: dict[tuple[str, bool], Path], tmp_path: Path
) -> None:
    write(models["gpt_neox", False], tmp_path / "out", (1, 3), "ffn")
    model = load(tmp_path / "out", trust=True)
    model.save_pretrained(tmp_path / "again")
    again = load(tmp_path / "again", trust=True)
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, again(input_ids=IDS).logits)


def test_hidden_states_and_gradients_flow_through_the_block(
    models: dict[tuple[str, bool], Path], tmp_path: Path
) -> None:
    write(models["llama", False], tmp_path / "out", (0, 2), "swiglu")
    model = load(tmp_path / "out", trust=True)
    output = model(input_ids=IDS, labels=IDS, output_hidden_states=True)
    assert len(output.hidden_states) == model.config.num_hidden_layers + 1
    output.loss.backward()
    block = model.model.layers[0].streamline_block
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in block.parameters())


@pytest.mark.parametrize("family", CONFIGS)
def test_without_its_code_a_checkpoint_is_refused_and_not_loaded_as_another_model(
    models: dict[tuple[str, bool], Path], tmp_path: Path, family: str
) -> None:
    write(models[family, False], tmp_path / "out", (1, 3), "swiglu")
    with pytest.raises(KeyError, match="trust_remote_code=True"):
        load(tmp_path / "out", trust=False)


def test_the_tokenizer_of_a_custom_checkpoint_loads_without_trusting_its_code(
    models: dict[tuple[str, bool], Path], tmp_path: Path
) -> None:
    write(models["llama", False], tmp_path / "out", (1, 3), "ffn")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("w5 w9")["input_ids"] == [5, 9]
    assert len(tokenizer) == VOCABULARY


def test_the_shipped_file_imports_torch_and_transformers_only(
    models: dict[tuple[str, bool], Path], tmp_path: Path
) -> None:
    write(models["llama", False], tmp_path / "out", (1, 3), "ffn")
    imports = transformers.dynamic_module_utils.get_imports(tmp_path / "out" / "modeling_streamline.py")
    assert set(imports) == {"torch", "transformers", "typing"}


@pytest.mark.parametrize("kind", ["none", "ffn"])
def test_buffers_of_an_old_checkpoint_neither_warn_nor_count(tmp_path: Path, kind: str) -> None:
    source = save_model(tmp_path / "source", "gpt_neox")
    tensors = load_file(source / SINGLE_FILE)
    for layer in range(LAYERS):
        attention = f"gpt_neox.layers.{layer}.attention"
        tensors[f"{attention}.rotary_emb.inv_freq"] = torch.ones(4)
        tensors[f"{attention}.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool)
        tensors[f"{attention}.masked_bias"] = torch.tensor(-1e9)
    save_file(tensors, source / SINGLE_FILE, metadata={"format": "pt"})
    write(source, tmp_path / "out", (1, 3), kind)
    model = load(tmp_path / "out", trust=kind == "ffn")
    assert parameter_count(read_checkpoint(tmp_path / "out")) == sum(p.numel() for p in model.parameters())
