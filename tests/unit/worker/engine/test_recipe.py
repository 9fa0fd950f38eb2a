"""What reading a recipe promises: it survives the round trip, and a bad one is refused by the field's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.worker.engine.recipes import recipe_json
from worker.engine.errors import EngineError
from worker.engine.recipe import Recipe

GOOD = recipe_json(Path("/models/tiny"), Path("/data/text.jsonl"))


@pytest.mark.parametrize("target", [{"sparsity": 0.25}, {"layers": 3}, {"window": [2, 5]}])
def test_json_makes_a_round_trip(target: dict[str, Any]) -> None:
    recipe = Recipe.from_json(GOOD | {"target": target})
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def changed(path: str, value: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(json.dumps(GOOD))
    *parents, last = path.split("/")
    place: Any = data
    for name in parents:
        place = place[name]
    place[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("surprise", 1, "/surprise: is unknown"),
        ("scoring/depth", 1, "/scoring/depth: is unknown"),
        (
            "replacement/kind",
            "magic",
            "/replacement/kind: is 'magic'; allowed: none, ffn, swiglu, layer, linear_merged",
        ),
        ("replacement/epochs", "2", "/replacement/epochs: is '2' but must be of type int"),
        ("replacement/epochs", True, "must be of type int"),
        ("seed", 1.5, "/seed: is 1.5 but must be of type int"),
        ("target/window", [1, 2, 3], "/target/window: must hold 2 values"),
        ("target/window", 3, "must be a list"),
        ("model", "llama", "/model: must be a JSON object"),
        ("output/dtype", "int8", "/output/dtype: is 'int8'"),
        ("evaluation", [{"path": "x"}], "/evaluation/0/column: is missing"),
    ],
)
def test_a_bad_field_is_refused_by_name(path: str, value: Any, message: str) -> None:
    with pytest.raises(EngineError) as caught:
        Recipe.from_json(changed(path, value))
    assert caught.value.code == "bad_recipe"
    assert message in caught.value.detail


def test_a_missing_field_is_refused_by_name() -> None:
    with pytest.raises(EngineError, match="/seed: is missing"):
        Recipe.from_json({name: value for name, value in GOOD.items() if name != "seed"})


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_anything_but_an_object_is_refused(data: Any) -> None:
    with pytest.raises(EngineError, match="must be a JSON object"):
        Recipe.from_json(data)


def test_a_whole_number_passes_for_a_fraction() -> None:
    assert Recipe.from_json(changed("replacement/learning_rate", 1)).replacement.learning_rate == 1.0
