"""Time to the first token against prompt length, with the spread of the rounds."""

from collections.abc import Mapping
from typing import Any

from app.report.plots.curves import curves
from app.report.plots.settings import Setting, at_first_batch, models_of, of_benchmark
from app.report.quantities import digits, seconds
from app.report.svg import Plot, Table


def draw(report: Mapping[str, Any]) -> Plot | None:
    """A line per model through the medians, where several prompt lengths were measured; else the table tells."""
    settings = (
        [_in_milliseconds(setting) for setting in at_first_batch(found)] if (found := of_benchmark(report)) else []
    )
    settings = [_in_milliseconds(setting) for setting in at_first_batch(of_benchmark(report))]
    settings = [setting for setting in settings if setting["models"]]
    if not settings:
        return None
    title = "Time to the first token against prompt length"
    measure = "time_to_first_token_s"
    drawing = curves("prompts", title, settings, "prompt_tokens", measure, "milliseconds", "tokens in the prompt")
    models = models_of(settings)
    rows = []
    for setting in settings:
        cells = []
        for model in models:
            measured = setting["models"].get(model, {})
            rate = (measured.get("prefill_tokens_per_second") or {}).get("median")
            first = seconds(measured[measure]["median"] / 1e3) if measure in measured else ""
            cells += [first, digits(rate, "")]
        rows.append([str(setting["prompt_tokens"]), *cells])
    head = [part for model in models for part in (f"{model}, first token", f"{model}, prompt tokens/s")]
    caption = (
        f"Reading the prompt and choosing the first token, {settings[0]['batch_size']} at a time; lower is better. "
        "Bands reach from quartile to quartile."
    )
    return Plot("prompts", "Time to first token", caption, drawing, Table(("prompt", *head), rows))


def _in_milliseconds(setting: Setting) -> Setting:
    name = "time_to_first_token_s"
    models = {
        model: {**measured, name: {end: value * 1e3 for end, value in measured[name].items()}}
        for model, measured in setting["models"].items()
        if name in measured
    }
    return {**setting, "models": models}
