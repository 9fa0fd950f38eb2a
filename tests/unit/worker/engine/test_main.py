"""What the command line promises: exit codes, one sentence for a mistake, and nothing but events on stdout."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from app.core import defaults
from tests.unit.worker.engine.recipes import recipe_json, write_text
from worker.engine.__main__ import make_parser
from worker.engine.console import ConsoleSink, print_summary
from worker.engine.errors import EngineError
from worker.engine.finished_run import refuse_other_run
from worker.engine.recipe import Recipe
from worker.engine.recipe_file import recipe_of_file
from worker.engine.request import check_flags, default_cache, recipe_from
from worker.engine.request_checks import check

ROOT = Path(__file__).parents[4]


def engine(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker.engine", *map(str, arguments)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )


def resolved(*arguments: object) -> Recipe:
    recipe = recipe_from(make_parser().parse_args(list(map(str, arguments))))
    check(recipe)
    return recipe


@pytest.fixture
def model(tiny_directory: Callable[[str], Path]) -> Path:
    return tiny_directory("llama")


def test_flags_resolve_every_default(model: Path, tmp_path: Path) -> None:
    recipe = resolved("--model", model, "--out", tmp_path, "--sparsity", 0.3)
    assert recipe.calibration.path is None
    assert (recipe.replacement.kind, recipe.replacement.layers, recipe.replacement.init) == ("layer", 1, "best")
    assert (recipe.scoring.metric, recipe.scoring.adaptive) == ("cosine", True)
    assert recipe.replacement.tokens == 131_072
    assert recipe.scoring.sequence_length == 64
    assert max(recipe.benchmark.prompt_tokens) + recipe.benchmark.new_tokens <= 64
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_several_prompts_and_rivals_are_taken(
    model: Path, tiny_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    flags = ["--layers", 1, "--prompt-tokens", 8, 16, "--rival", tiny_directory("qwen2")]
    recipe = resolved("--model", model, "--out", tmp_path, *flags)
    assert recipe.benchmark.prompt_tokens == (8, 16)
    assert [rival.name for rival in recipe.benchmark.rivals] == [tiny_directory("qwen2").name]


def test_flags_of_scoring_and_of_kinds_without_training_are_taken(model: Path, tmp_path: Path) -> None:
    flags = ["--layers", 1, "--kind", "linear_merged", "--metric", "angular", "--no-adaptive"]
    recipe = resolved("--model", model, "--out", tmp_path, *flags)
    assert (recipe.replacement.init, recipe.scoring.metric, recipe.scoring.adaptive) == (
        "closed_form",
        "angular",
        False,
    )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "how much to remove"),
        (["--sparsity", "1.5"], "between 0 and 1"),
        (["--sparsity", "0.99"], "reachable range"),
        (["--layers", "5"], "from 1 to 3"),
        (["--window", "3", "9"], "0 <= start < end <= 5"),
        (["--layers", "1", "--kind", "ffn", "--format", "native"], "gated"),
        (["--layers", "1", "--sequence-length", "65"], "from 2 to 64"),
        (["--layers", "1", "--prompt-tokens", "60"], "exceed the model's 64 positions"),
        (["--layers", "1", "--calibration", "nowhere.jsonl"], "nowhere.jsonl does not exist"),
        (["--layers", "1", "--learning-rate", "-1"], "must be above 0"),
        (["--layers", "1", "--learning-rate", "0"], "must be above 0"),
        (["--layers", "1", "--tokens", "0"], "replacement.tokens is 0 but must be at least"),
        (["--layers", "1", "--batch-size", "0"], "replacement.batch_size is 0 but must be at least 1"),
        (["--layers", "1", "--sequence-length", "0"], "scoring.sequence_length is 0 but must be from 2 to 64"),
        (["--layers", "1", "--prompt-tokens", "0"], "benchmark.prompt_tokens is 0 but must be from 1 to"),
        (["--layers", "1", "--new-tokens", "0"], "benchmark.new_tokens is 0 but must be from 2 to"),
        (["--layers", "1", "--epochs", "-1"], "at least 0"),
        (["--layers", "1", "--kind", "linear_residual", "--format", "native"], "has no native form"),
        (["--window", "0", "2", "--kind", "linear_merged"], "start at 1 or later"),
        (["--layers", "1", "--replacement-layers", "0"], "replacement.layers is 0 but must be at least 1"),
        (["--layers", "1", "--replacement-layers", "2", "--kind", "ffn"], "one block at most"),
        (["--layers", "1", "--init", "closed_form", "--kind", "none"], "replacement.init: none puts nothing in"),
        (["--layers", "1", "--loss", "kd", "--kind", "none"], "loss is kd, but none puts nothing in to be trained"),
        (["--layers", "1", "--epochs", "9", "--kind", "linear_merged"], "leave epochs out, or use replacement.kind"),
        (["--layers", "1", "--loss", "kd", "--kind", "linear_residual"], "fitted in closed form and not"),
        (["--layers", "1", "--metric", "magic"], "invalid choice"),
        (["--layers", "1", "--windows", "0"], "selection.windows is 0 but must be at least 1"),
        (["--layers", "2", "--windows", "2", "--rounds", "2"], "use rounds or windows"),
        (["--window", "1", "3", "--rounds", "2"], "target.window names the one window"),
        (["--layers", "2", "--windows", "2", "--kind", "ffn"], "use replacement.kind layer"),
        (["--layers", "1", "--windows", "2"], "2 windows each make it smaller"),
        (["--layers", "1", "--healing", "magic"], "invalid choice"),
        (["--layers", "1", "--healing", "lora", "--healing-rank", "0"], "healing.rank is 0 but must be at least 1"),
        (["--layers", "1", "--healing", "lora", "--healing-alpha", "nan"], "healing.alpha is nan but must be above 0"),
        (["--layers", "1", "--healing", "lora", "--healing-tokens", "9"], "healing.tokens is 9 but must be from 64 to"),
        (["--layers", "1", "--healing", "lora", "--execution", "streamed"], "healing needs the whole model in memory"),
        (["--layers", "1", "--loss", "mse+kd", "--execution", "streamed"], "loss mse+kd needs the whole model"),
        (["--layers", "1", "--sparsity", "0.2"], "not allowed with"),
        (["--layers", "one"], "invalid int"),
        (["--kind", "magic"], "invalid choice"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_64_before_any_work(
    model: Path, tmp_path: Path, flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from worker.engine.__main__ import main

    try:
        code = main(["--model", str(model), "--out", str(tmp_path / "out"), *flags])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    captured = capsys.readouterr()
    assert code == 64
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--calibration", "--evaluate"])
def test_text_too_short_for_one_sequence_is_bad_usage_with_the_counts(
    model: Path, tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from worker.engine.__main__ import main

    text = tmp_path / "short.txt"
    text.write_text("w2 w3")
    assert main(["--model", str(model), "--out", str(tmp_path / "out"), "--layers", "1", flag, str(text)]) == 64
    said = capsys.readouterr().err
    assert "short.txt has 3 tokens, too few for one sequence of 64" in said
    assert "lower --sequence-length" in said
    assert not (tmp_path / "out").exists()


def test_flags_of_training_that_name_their_defaults_are_let_through(model: Path, tmp_path: Path) -> None:
    flags = ["--kind", "none", "--loss", "mse", "--epochs", defaults.EPOCHS, "--learning-rate", str(rate_of(model))]
    check_flags(options_of("--model", model, "--out", tmp_path, "--layers", 1, *flags))


def rate_of(model: Path) -> float:
    return defaults.learning_rate(json.loads((model / "config.json").read_text()))


def options_of(*arguments: object) -> argparse.Namespace:
    return make_parser().parse_args(list(map(str, arguments)))


@pytest.fixture
def from_a_service(model: Path, tmp_path: Path) -> Path:
    """A recipe as a service hands it out, and the texts that it was made with."""
    recipe = recipe_json(model, tmp_path / "train.jsonl")
    recipe["calibration"] |= {"path": "<workspace>/data/ds-1.jsonl", "name": "ds-1"}
    recipe["evaluation"] = [recipe["calibration"] | {"path": "<workspace>/data/ds-2.jsonl", "name": "ds-2"}]
    recipe["model"]["path"] = "<workspace>/source"
    for name in ("train", "test"):
        write_text(tmp_path / f"{name}.jsonl")
    (path := tmp_path / "recipe.json").write_text(json.dumps(recipe))
    return path


def test_a_services_recipe_says_which_places_to_name(from_a_service: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        recipe_of_file(options_of("--recipe", from_a_service, "--out", tmp_path / "out"))
    said = caught.value.detail
    assert said.endswith("with --model DIR (tiny), --calibration FILE (ds-1), --evaluate FILE ... (ds-2)")


def test_a_services_recipe_runs_on_the_places_that_are_named(model: Path, from_a_service: Path, tmp_path: Path) -> None:
    texts = ["--calibration", tmp_path / "train.jsonl", "--evaluate", tmp_path / "test.jsonl"]
    flags = ["--recipe", from_a_service, "--out", tmp_path / "out", "--model", model, *texts]
    recipe = recipe_of_file(options_of(*flags))
    check(recipe)
    assert (recipe.calibration.name, recipe.calibration.path) == ("ds-1", str(tmp_path / "train.jsonl"))
    assert [(text.name, text.path) for text in recipe.evaluation] == [("ds-2", str(tmp_path / "test.jsonl"))]
    with pytest.raises(EngineError, match="--evaluate names 2, but the recipe has 1; name 1, in this order: ds-2"):
        recipe_of_file(options_of(*flags, tmp_path / "train.jsonl"))


def test_a_finished_run_of_another_recipe_is_not_written_over_unasked(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from worker.engine.__main__ import main

    (out := tmp_path / "out").mkdir()
    flags = ["--model", str(model), "--out", str(out), "--layers", "1", "--kind", "none"]
    recipe = recipe_from(options_of(*flags))
    (out / "recipe.json").write_text(json.dumps(recipe.to_json()))
    refuse_other_run(replace(recipe, seed=1), out)  # not finished: it goes on with what it can use
    (out / "report.json").write_text("{}")
    refuse_other_run(replace(recipe, device="cuda", execution="streamed"), out)
    assert main([*flags, "--seed", "3"]) == 64
    said = capsys.readouterr().err
    assert "holds a finished run of another recipe (seed); choose another directory with --out" in said
    assert "--overwrite" in said
    (out / "recipe.json").write_text("{")
    with pytest.raises(EngineError, match="nobody can tell which"):
        refuse_other_run(recipe, out)


def test_a_run_that_is_stopped_says_after_what_it_goes_on() -> None:
    sink = ConsoleSink()
    assert sink.stopped() == "stopped; the same command goes on after the last finished stage, if one was."
    for stage in ("fetch", "select"):
        sink.write({"event": "stage_finished", "stage": stage, "seconds": 1.0, "skipped": False})
    sink.write({"event": "stage_started", "stage": "train"})
    sink.close()
    assert sink.stopped() == "stopped; the same command goes on after `select`."


def test_the_summary_says_what_the_speed_is_the_median_of(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"speedup": 1.04, "intervals": {"speedup": [0.98, 1.1]}}
    print_summary({"removed_layers": [1], "metrics": metrics, "benchmark": {"repeats": 5}}, Console(width=100))
    said = capsys.readouterr().out
    assert "decoding speed ×1.04: median of 5 paired rounds, 95 % 0.98 to 1.10: too noisy to tell" in said


def test_help_teaches_by_examples() -> None:
    text = make_parser().format_help()
    assert str(default_cache().name) in text
    assert text.count("python -m worker.engine --model") >= 3
    assert "report.json" in text


def test_json_mode_prints_events_and_nothing_else(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    replacement = recipe_json(model, None)["replacement"] | {"kind": "none"}
    path.write_text(json.dumps(recipe_json(model, write_text(tmp_path / "t.jsonl"), replacement=replacement)))
    done = engine("--recipe", path, "--out", tmp_path / "run", "--cache", tmp_path / "cache", "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["event"] == "stage_started"
    assert events[-1] == {"event": "finished", "report": "report.json", "time": events[-1]["time"]}
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").is_file()


def test_a_failure_ends_with_an_event_and_exit_1(model: Path, tmp_path: Path) -> None:
    path, text = tmp_path / "recipe.json", tmp_path / "t.txt"
    text.write_text("w2 w3")
    path.write_text(json.dumps(recipe_json(model, text)))
    done = engine("--recipe", path, "--out", tmp_path / "run", "--cache", tmp_path / "cache", "--json")
    assert done.returncode == 1
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["event"], last["stage"], last["code"], last["permanent"]) == (
        "failed",
        "score",
        "text_too_short",
        True,
    )
    assert "3 tokens, too few for one sequence of 16" in last["detail"]
