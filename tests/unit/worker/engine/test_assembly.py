"""What a written checkpoint keeps, byte for byte, and what becomes of the parts around the weights."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from app.core.architectures import family_of, native_refusal
from app.core.safetensors_file import INDEX_FILE, SINGLE_FILE, Checkpoint, parameter_count, read_checkpoint
from app.core.selection import Target, blocks_added, first_start, window_size
from tests.unit.worker.engine.tiny_models import CONFIGS, LAYERS, random_replacement, save_model
from worker.engine.assembly import assemble
from worker.engine.errors import EngineError
from worker.engine.recipe import Format, Kind

KINDS: tuple[Kind, ...] = ("none", "layer", "ffn", "swiglu", "linear_merged", "linear_residual")
FORMATS: tuple[Format, ...] = ("auto", "native")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    saved = {name: save_model(root / name, name, dtype=torch.bfloat16) for name in CONFIGS}
    saved["llama-tied"] = save_model(root / "llama-tied", "llama", tie_word_embeddings=True)
    saved["qwen2-sharded"] = save_model(root / "qwen2-sharded", "qwen2", shard_bytes="4KB")
    saved["gpt_neox-tied"] = save_model(root / "gpt_neox-tied", "gpt_neox", tie_word_embeddings=True)
    return saved


def config_of(path: Path) -> Any:
    return json.loads((path / "config.json").read_text())


def raw(checkpoint: Checkpoint, name: str) -> bytes:
    file = next(file for file in checkpoint.files if file.name == checkpoint.tensor_file[name])
    entry = file.header.tensors[name]
    with file.path.open("rb") as stream:
        stream.seek(file.header.data_offset + entry.start)
        return stream.read(entry.nbytes)


def hashes(directory: Path) -> dict[str, str]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_window_keeps_every_kept_tensor_bit_for_bit_and_weighs_what_the_plan_says(
    models: dict[str, Path], tmp_path: Path, data: st.DataObject
) -> None:
    source = models[data.draw(st.sampled_from(sorted(models)))]
    config = config_of(source)
    family = family_of(config)
    kind: Kind = data.draw(st.sampled_from(KINDS))
    fmt: Format = data.draw(st.sampled_from(FORMATS))
    if fmt == "native" and native_refusal(config, kind):
        fmt = "auto"
    start = data.draw(st.integers(first_start(kind), LAYERS - 1))
    end = data.draw(st.integers(start + 1, LAYERS))
    end = min(end, start + LAYERS - (1 if blocks_added(kind) else 2))
    layers = data.draw(st.integers(1, end - start)) if kind == "layer" else 1
    replacement = random_replacement(config, kind, layers=layers)

    result = assemble(source, tmp_path / "out", start=start, end=end, kind=kind, fmt=fmt, replacement=replacement)

    removed = end - start
    planned = window_size(config, Target(window=(start, end)), kind, fmt, layers=layers).pruned_parameters
    assert result.parameters == planned == parameter_count(read_checkpoint(tmp_path / "out"))
    before, after = read_checkpoint(source), read_checkpoint(tmp_path / "out")
    takes_layer = layers if kind == "layer" else int(fmt == "native" and kind in ("ffn", "swiglu"))
    overwritten = {f"{family.layers}.{start - 1}.{name}" for name in replacement} if kind == "linear_merged" else set()
    assert config_of(tmp_path / "out")["num_hidden_layers"] == LAYERS - removed + takes_layer
    for name in before.tensor_file:
        new_name = name
        if name.startswith(f"{family.layers}."):
            number, _, rest = name.removeprefix(f"{family.layers}.").partition(".")
            layer = int(number)
            if start <= layer < end:
                continue
            if layer >= end:
                new_name = f"{family.layers}.{layer - removed + takes_layer}.{rest}"
        elif name == "embed_out.weight" and new_name not in after.tensor_file:
            new_name = "lm_head.weight"  # the name that custom code needs
        assert (raw(after, new_name) == raw(before, name)) == (name not in overwritten)
        assert after.entry(new_name).shape == before.entry(name).shape
    for file in after.files:
        assert file.header.metadata == {"format": "pt"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_inputs_give_the_same_bytes(models: dict[str, Path], tmp_path: Path, kind: Any) -> None:
    for model in ("llama", "qwen2-sharded"):
        replacement = random_replacement(config_of(models[model]), kind)
        for name in ("a", "b"):
            assemble(models[model], tmp_path / name, start=1, end=3, kind=kind, replacement=replacement)
        assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


def test_every_way_of_copying_gives_the_same_bytes(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(errno.EXDEV, "another file system")

    assemble(models["llama"], tmp_path / "kernel", start=1, end=2, kind="none")
    monkeypatch.setattr(os, "copy_file_range", refuse)
    assemble(models["llama"], tmp_path / "sendfile", start=1, end=2, kind="none")
    monkeypatch.setattr(os, "sendfile", refuse)
    assemble(models["llama"], tmp_path / "buffer", start=1, end=2, kind="none")
    assert hashes(tmp_path / "kernel") == hashes(tmp_path / "sendfile") == hashes(tmp_path / "buffer")


def test_a_sharded_model_stays_sharded_and_its_index_names_every_tensor(
    models: dict[str, Path], tmp_path: Path
) -> None:
    source = models["qwen2-sharded"]
    before = read_checkpoint(source)
    assemble(source, tmp_path / "out", start=0, end=3, kind="none")
    after = read_checkpoint(tmp_path / "out")
    assert after.sharded
    assert 1 < len(after.files) < len(before.files)
    index = json.loads((tmp_path / "out" / INDEX_FILE).read_text())
    assert index["metadata"]["total_size"] == sum(entry.nbytes for _, entry in after.entries())
    assert [file.name for file in after.files] == [
        f"model-{i:05d}-of-{len(after.files):05d}.safetensors" for i in range(1, len(after.files) + 1)
    ]


def test_tokenizer_chat_template_and_generation_config_come_along_and_nothing_else(
    models: dict[str, Path], tmp_path: Path
) -> None:
    source = shutil.copytree(models["llama"], tmp_path / "source")
    for name in ("LICENSE", "README.md", "pytorch_model.bin", "training_args.bin", "notes.txt"):
        (source / name).write_text(name)
    assemble(source, tmp_path / "out", start=1, end=2, kind="none")
    written = hashes(tmp_path / "out")
    kept = {"tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja", "LICENSE"}
    assert set(written) == kept | {"config.json", SINGLE_FILE}
    assert {name: written[name] for name in kept} == {name: hashes(source)[name] for name in kept}


def test_only_an_asked_for_dtype_changes_the_weights_and_the_config_says_so(
    models: dict[str, Path], tmp_path: Path
) -> None:
    source = models["llama"]
    replacement = random_replacement(config_of(source), "ffn")
    assemble(source, tmp_path / "same", start=1, end=2, kind="ffn", replacement=replacement)
    assemble(source, tmp_path / "half", start=1, end=2, kind="ffn", replacement=replacement, dtype="float16")
    same, half = (load_file(tmp_path / name / SINGLE_FILE) for name in ("same", "half"))
    assert {tensor.dtype for tensor in same.values()} == {torch.bfloat16}
    assert config_of(tmp_path / "half")["dtype"] == "float16"
    for name, tensor in same.items():
        if "streamline_block" not in name:
            assert torch.equal(half[name], tensor.to(torch.float16))
    block = "model.layers.1.streamline_block.up_proj.weight"
    assert torch.equal(half[block], replacement["up_proj.weight"].to(torch.float16))


def test_a_weight_that_does_not_fit_the_new_dtype_is_refused_by_name(tmp_path: Path) -> None:
    source = save_model(tmp_path / "source", "llama")
    from safetensors.torch import save_file

    tensors = load_file(source / SINGLE_FILE)
    tensors["model.norm.weight"][0] = 1e6
    save_file(tensors, source / SINGLE_FILE)
    with pytest.raises(EngineError, match=r"model\.norm\.weight .* choose bfloat16") as caught:
        assemble(source, tmp_path / "out", start=1, end=2, kind="none", dtype="float16")
    assert caught.value.code == "dtype_overflow"
    assert not (tmp_path / "out").exists()


def test_a_head_stored_twice_is_written_once(models: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = shutil.copytree(models["llama-tied"], tmp_path / "source")
    tensors = load_file(source / SINGLE_FILE)
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, source / SINGLE_FILE)
    assemble(source, tmp_path / "out", start=1, end=2, kind="none")
    assert "lm_head.weight" not in read_checkpoint(tmp_path / "out").tensor_file

    tensors["lm_head.weight"] += 1
    save_file(tensors, source / SINGLE_FILE)
    assemble(source, tmp_path / "out", start=1, end=2, kind="none")
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is False
    assert "lm_head.weight" in read_checkpoint(tmp_path / "out").tensor_file


def test_a_bare_models_tensors_get_the_names_of_the_whole_model(models: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = shutil.copytree(models["llama-tied"], tmp_path / "source")
    tensors = load_file(source / SINGLE_FILE)
    save_file({name.removeprefix("model."): tensor for name, tensor in tensors.items()}, source / SINGLE_FILE)
    assemble(source, tmp_path / "bare", start=1, end=2, kind="none")
    assemble(models["llama-tied"], tmp_path / "whole", start=1, end=2, kind="none")
    bare, whole = (load_file(tmp_path / name / SINGLE_FILE) for name in ("bare", "whole"))
    assert bare.keys() == whole.keys()
    assert all(torch.equal(bare[name], whole[name]) for name in whole)


def test_per_layer_settings_follow_the_cut(tmp_path: Path) -> None:
    types = ["full_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    source = save_model(
        tmp_path / "source", "qwen2", layer_types=types, use_sliding_window=True, sliding_window=8, max_window_layers=2
    )
    assemble(source, tmp_path / "cut", start=1, end=3, kind="none")
    assert config_of(tmp_path / "cut")["layer_types"] == ["full_attention", "full_attention", "sliding_attention"]
    assert config_of(tmp_path / "cut")["max_window_layers"] == 1
    layer = random_replacement(config_of(source), "layer")
    assemble(source, tmp_path / "layer", start=1, end=3, kind="layer", replacement=layer)
    assert config_of(tmp_path / "layer")["layer_types"] == [types[0], types[1], types[3], types[4]]
    assert config_of(tmp_path / "layer")["max_window_layers"] == 2
    two = random_replacement(config_of(source), "layer", layers=2)
    assemble(source, tmp_path / "two", start=1, end=4, kind="layer", replacement=two)
    assert config_of(tmp_path / "two")["layer_types"] == [types[0], types[1], types[2], types[4]]
    assert config_of(tmp_path / "two")["max_window_layers"] == 2


@pytest.mark.parametrize(
    ("family", "absent", "expected"),
    [
        ("gemma2", ("layer_types",), {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
        (
            "gemma3_text", ("layer_types", "_sliding_window_pattern"),
            {"layer_types": ["sliding_attention"] * 3, "sliding_window_pattern": None},
        ),
        ("gpt_oss", ("layer_types",), {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
        (
            "llama4_text", ("no_rope_layers", "moe_layers", "layer_types"),
            {"no_rope_layers": [1, 0, 1], "moe_layers": [1], "no_rope_layer_interval": None,
             "interleave_moe_layer_step": None},
        ),
        ("qwen3_moe", ("layer_types",), {"mlp_only_layers": [0, 1, 2], "decoder_sparse_step": 1}),
        ("deepseek_v3", (), {"first_k_dense_replace": 1}),
    ],
)  # fmt: skip
def test_a_pattern_that_a_cut_breaks_is_written_out_layer_by_layer(
    tmp_path: Path, family: str, absent: tuple[str, ...], expected: dict[str, Any]
) -> None:
    source = save_model(tmp_path / "source", family)
    config = {name: value for name, value in config_of(source).items() if name not in absent}
    if family == "gemma3_text":
        config["sliding_window_pattern"] = 3
    (source / "config.json").write_text(json.dumps(config))
    assemble(source, tmp_path / "out", start=1, end=3, kind="none")
    written = config_of(tmp_path / "out")
    for name, value in expected.items():
        assert written.get(name) == value, name


def test_what_has_nothing_to_do_with_layers_stays_as_it_was(tmp_path: Path) -> None:
    source = save_model(tmp_path / "source", "llama")
    config = {name: value for name, value in config_of(source).items() if name != "rope_parameters"}
    config |= {"rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 2.0}, "eos_token_id": list(range(5))}
    (source / "config.json").write_text(json.dumps(config))
    assemble(source, tmp_path / "out", start=1, end=3, kind="none")
    assert config_of(tmp_path / "out") == config | {"num_hidden_layers": LAYERS - 2}


def test_heads_for_further_tokens_are_left_out(tmp_path: Path) -> None:
    source = save_model(tmp_path / "source", "deepseek_v3")
    tensors = load_file(source / SINGLE_FILE)
    bare = parameter_count(read_checkpoint(source))
    tensors |= {f"model.layers.{LAYERS}.eh_proj.weight": torch.ones(16, 32), "mtp.norm.weight": torch.ones(16)}
    save_file(tensors, source / SINGLE_FILE, metadata={"format": "pt"})
    (source / "config.json").write_text(json.dumps(config_of(source) | {"num_nextn_predict_layers": 1}))
    assemble(source, tmp_path / "out", start=1, end=1, kind="none")
    assert config_of(tmp_path / "out")["num_nextn_predict_layers"] == 0
    assert parameter_count(read_checkpoint(tmp_path / "out")) == bare


def test_a_gpt2_of_old_is_written_whole_and_without_loss(tmp_path: Path) -> None:
    """The first GPT-2 is stored without its base module's name, and with its masks."""
    source = save_model(tmp_path / "source", "gpt2")
    assemble(source, tmp_path / "whole", start=1, end=2, kind="none")
    tensors = {name.removeprefix("transformer."): t for name, t in load_file(source / SINGLE_FILE).items()}
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 8, 8) for layer in range(LAYERS)}
    save_file(tensors | masks, source / SINGLE_FILE, metadata={"format": "pt"})
    result = assemble(source, tmp_path / "bare", start=1, end=2, kind="none")
    bare, whole = (load_file(tmp_path / name / SINGLE_FILE) for name in ("bare", "whole"))
    assert {name for name in bare if not name.endswith(".attn.bias")} == whole.keys()
    assert all(torch.equal(bare[name], whole[name]) for name in whole)
    assert result.parameters == sum(tensor.numel() for tensor in whole.values())


def test_too_little_space_is_refused_before_anything_is_written(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10_000, 9_000, 1_000))
    with pytest.raises(EngineError, match=r"needs \d+ bytes, 1000 are free") as caught:
        assemble(models["llama"], tmp_path / "out", start=1, end=2, kind="none")
    assert (caught.value.code, caught.value.permanent) == ("disk_full", True)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_leaves_what_was_there_before(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assemble(models["llama"], tmp_path / "out", start=1, end=2, kind="none")
    before = hashes(tmp_path / "out")
    real, calls = os.write, 0

    def fill_up(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", fill_up)
    with pytest.raises(EngineError, match=r"filled up after \d+ bytes") as caught:
        assemble(models["llama"], tmp_path / "out", start=1, end=3, kind="none", dtype="float16")
    assert caught.value.code == "disk_full"
    assert hashes(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_truncated_source_is_named(models: dict[str, Path], tmp_path: Path) -> None:
    source = shutil.copytree(models["llama"], tmp_path / "source")
    with (source / SINGLE_FILE).open("r+b") as file:
        file.truncate((source / SINGLE_FILE).stat().st_size - 1)
    with pytest.raises(EngineError, match=r"model\.safetensors: truncated") as caught:
        assemble(source, tmp_path / "out", start=1, end=2, kind="none")
    assert caught.value.code == "corrupt_model"


def test_weights_of_another_architecture_than_the_config_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    source = shutil.copytree(models["opt"], tmp_path / "source")
    shutil.copy(models["llama"] / "config.json", source / "config.json")
    with pytest.raises(EngineError, match="no tensor named"):
        assemble(source, tmp_path / "out", start=1, end=2, kind="none")


def test_a_replacement_that_does_not_fit_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    config = config_of(models["llama"])
    good = random_replacement(config, "swiglu")
    lacking = {name: tensor for name, tensor in good.items() if "gate" not in name}
    misshapen = {**good, "mlp.up_proj.weight": torch.zeros(2, 2)}
    for bad in (lacking, misshapen, {**good, "more": torch.zeros(1)}, {}):
        with pytest.raises(EngineError) as caught:
            assemble(models["llama"], tmp_path / "out", start=1, end=2, kind="swiglu", replacement=bad)
        assert caught.value.code == "bad_replacement"


def test_the_native_form_is_refused_with_its_reason(tmp_path: Path, models: dict[str, Path]) -> None:
    post_norm = save_model(tmp_path / "source", "opt", do_layer_norm_before=False)
    cases: tuple[tuple[Path, Kind, str], ...] = (
        (post_norm, "swiglu", "post-norm"),
        (models["llama"], "ffn", "gated"),
        (models["llama"], "linear_residual", "norm in front"),
    )
    for source, kind, reason in cases:
        replacement = random_replacement(config_of(source), kind)
        with pytest.raises(EngineError, match=reason) as caught:
            assemble(source, tmp_path / "out", start=1, end=2, kind=kind, fmt="native", replacement=replacement)
        assert caught.value.code == "native_form_refused"


def test_a_checkpoint_with_its_own_code_is_not_cut_again(models: dict[str, Path], tmp_path: Path) -> None:
    replacement = random_replacement(config_of(models["llama"]), "ffn")
    assemble(models["llama"], tmp_path / "once", start=1, end=2, kind="ffn", replacement=replacement)
    with pytest.raises(EngineError, match="its own modelling code"):
        assemble(tmp_path / "once", tmp_path / "twice", start=1, end=2, kind="none")


def test_a_window_outside_the_model_or_over_all_of_it_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    for start, end in ((-1, 2), (3, LAYERS + 1), (3, 2), (0, LAYERS)):
        with pytest.raises(EngineError) as caught:
            assemble(models["llama"], tmp_path / "out", start=start, end=end, kind="none")
        assert caught.value.code == "bad_window"


def test_a_map_without_a_layer_in_front_or_more_layers_than_the_window_are_refused(
    models: dict[str, Path], tmp_path: Path
) -> None:
    source = models["llama"]
    merged = random_replacement(config_of(source), "linear_merged")
    with pytest.raises(EngineError, match="no layer is in front"):
        assemble(source, tmp_path / "out", start=0, end=2, kind="linear_merged", replacement=merged)
    three = random_replacement(config_of(source), "layer", layers=3)
    with pytest.raises(EngineError, match="3 trained layers do not fit a window of 2"):
        assemble(source, tmp_path / "out", start=1, end=3, kind="layer", replacement=three)


def test_leftovers_of_a_killed_run_are_replaced(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part" / "model.safetensors").write_bytes(b"half")
    assemble(models["llama"], tmp_path / "out", start=1, end=2, kind="none")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert read_checkpoint(tmp_path / "out").files
