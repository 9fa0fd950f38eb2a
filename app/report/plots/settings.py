"""What the plots of the benchmark share: its settings and the colours of its models."""

from collections.abc import Mapping
from typing import Any, Final

RIVAL_COLOURS: Final = 4

Setting = Mapping[str, Any]


def of_benchmark(report: Mapping[str, Any]) -> list[Setting]:
    """The measured settings; none where nothing was timed."""
    return list((report.get("benchmark") or {}).get("settings") or ())


def models_of(settings: list[Setting]) -> list[str]:
    """The models that were timed, dense and pruned first."""
    named = dict.fromkeys(name for setting in settings for name in setting["models"])
    return sorted(named, key=lambda name: {"dense": 0, "pruned": 1}.get(name, 2))


def colours(models: list[str]) -> dict[str, str]:
    """A class for each model: its own for dense and pruned, one of a few for the rivals in turn."""
    rivals = [name for name in models if name not in ("dense", "pruned")]
    return {name: name for name in models} | {
        name: f"rival-{index % RIVAL_COLOURS}" for index, name in enumerate(rivals)
    }


def at_first_prompt(settings: list[Setting]) -> list[Setting]:
    """The settings of the prompt length that gates are held against, by batch size."""
    chosen = [setting for setting in settings if setting["prompt_tokens"] == settings[0]["prompt_tokens"]]
    return sorted(chosen, key=lambda setting: int(setting["batch_size"]))


def at_first_batch(settings: list[Setting]) -> list[Setting]:
    """The settings of the first batch size, by prompt length."""
    chosen = [setting for setting in settings if setting["batch_size"] == settings[0]["batch_size"]]
    return sorted(chosen, key=lambda setting: int(setting["prompt_tokens"]))
