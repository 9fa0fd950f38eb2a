"""Decoded tokens per second against batch size, with the spread of the rounds."""

from collections.abc import Mapping
from typing import Any

from app.report.plots.curves import curves
from app.report.plots.settings import at_first_prompt, models_of, of_benchmark
from app.report.quantities import digits, ratio
from app.report.svg import Plot, Table

MEASURE = "decode_tokens_per_second"


def draw(report: Mapping[str, Any]) -> Plot | None:
    """A line per model through the medians; bands from the lower to the upper quartile."""
    settings = [
        setting
        for setting in at_first_prompt(of_benchmark(report))
        if any(MEASURE in measured for measured in setting["models"].values())
    ]
    if not settings:
        return None
    title = "Decoded tokens per second against batch size"
    drawing = curves("speed", title, settings, "batch_size", MEASURE, "tokens per second", "sequences at a time")
    benchmark = report["benchmark"]
    speedup = (settings[0].get("speedup") or {}).get("median")
    caption = (
        f"Whole batch, after a prompt of {settings[0]['prompt_tokens']} tokens, on {benchmark['device']} in "
        f"{benchmark['dtype']}. All models take turns; bands reach from quartile to quartile of "
        f"{benchmark.get('repeats', 'several')} rounds."
    )
    if speedup:
        caption = f"{ratio(speedup)} as fast at batch size {settings[0]['batch_size']}. {caption}"
    models = models_of(settings)
    rows = [
        [str(setting["batch_size"]), *(_cell(setting["models"].get(model, {})) for model in models),
         ratio(setting["speedup"]["median"]) if "speedup" in setting else ""]
        for setting in settings
    ]  # fmt: skip
    return Plot("speed", "Decoding", caption, drawing, Table(("batch size", *models, "speed-up"), rows))


def _cell(measured: Mapping[str, Any]) -> str:
    if MEASURE not in measured:
        return ""
    spread = measured[MEASURE]
    low, high = digits(spread["lower_quartile"]), digits(spread["upper_quartile"])
    return f"{digits(spread['median'])} ({low} to {high})"
