"""What the page of a report promises: every plot that has data, nothing from outside, and no word taken for markup."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.windows import runs
from app.report.page import HEADERS, render, strip_of
from app.report.plots import drawn, similarity
from app.report.plots.heatmap import colour
from app.report.svg import Plot, Scale, nice_ticks, shortened
from tests.unit.app.report.reports import JOB, full, version_0
from tests.unit.app.report.strategies import SURROUNDINGS, found_by_stages
from worker.engine.report import compose

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>&amp;'
PLOTS = {
    "heatmap", "similarity", "losses", "perplexity", "accuracy", "stability", "agreement", "flips", "speed", "prompts",
    "latency", "sizes", "stages",
}  # fmt: skip


class _Reader(HTMLParser):
    """Collects the elements, their attributes and their words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words += data

    def of(self, name: str) -> set[str]:
        return {value for _, key, value in self.attributes if key == name}


def test_every_plot_is_drawn_named_and_described_with_its_numbers_beside_it() -> None:
    page = _Reader(render(full(), JOB))
    assert page.of("id") >= PLOTS
    assert page.tags.count("svg") == page.tags.count("details") == len(PLOTS)
    assert {f"{name}-title" for name in PLOTS} | {f"{name}-description" for name in PLOTS} <= page.of("id")
    assert "Layers 5 to 12 of 24 gone, replaced by layer." in re.sub(r"\s+", " ", page.words)
    assert all(name in page.words for name in ("team/rival", "team/giant", "piqa", "story_cloze"))
    assert "it does not fit beside the others" in page.words


def test_the_speed_says_what_it_is_the_median_of_and_whether_that_tells_anything() -> None:
    found = full()
    found["metrics"]["intervals"] = {"speedup": [0.9, 1.6]}
    said = " ".join(_Reader(render(found, JOB)).words.split())
    assert "median of 5 paired rounds, 95 % 0.90 to 1.60: too noisy to tell; each by itself:" in said
    assert "median of 5 paired rounds; each by itself:" in _Reader(render(full(), JOB)).words


def _captions(report: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {plot.name: (plot.title, plot.caption) for _, plots in drawn(report) for plot in plots}


def test_captions_say_what_was_drawn() -> None:
    found = full()
    found["scores"] |= {"metric": "angular", "better": "lower", "stopped": "all 64 sequences were scored"}
    (phase,) = found["training"]["phases"]
    found["training"]["phases"] = [phase, phase | {"loss": "kd", "best": 0.5}]
    captions = _captions(found)
    assert captions["similarity"][0] == "Distance by layer"
    assert captions["heatmap"][1].endswith("best window of each size. All 64 sequences were scored.")
    assert re.search(
        r"not trained on; of the latter mse from [\d.]+ to 0.188; kd from [\d.]+ to 0.500\.", captions["losses"][1]
    )
    assert "cut's error in the hidden states (mse) at the end" in captions["losses"][1]
    assert _captions(full())["similarity"][0] == "Similarity by layer"


def _by_layer(**scores: Any) -> Plot:
    found = full()
    found["scores"] |= scores
    plot = similarity.draw(found)
    assert plot is not None
    return plot


@pytest.mark.parametrize("metric", ["angular", "euclidean"])
def test_bars_of_a_distance_start_at_zero_so_that_their_lengths_are_its_ratios(metric: str) -> None:
    table = [[distance] for distance in (0.2, 0.21, 0.22, 0.4)]
    plot = _by_layer(metric=metric, better="lower", layers=4, table=table)
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', plot.picture)]
    assert [height / heights[0] for height in heights] == pytest.approx([1, 1.05, 1.1, 2], abs=0.01)
    assert ">0</text>" in plot.picture
    assert "not at 0" not in plot.caption


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_similarities_are_dots_on_an_axis_that_says_that_it_is_cut(metric: str) -> None:
    plot = _by_layer(metric=metric)
    below = plot.picture.count("<path")
    assert below == 2, "layers 0 and 1, far below the others"
    assert plot.picture.count("<circle") == 24 - below + 2, "the other layers, and the keys of their colours"
    assert "<rect" not in plot.picture
    assert re.search(r"The axis starts at 0\.9\d+, not at 0\.", plot.caption)


def test_distances_of_nothing_have_their_plot() -> None:
    assert "nan" not in _by_layer(metric="angular", better="lower", layers=2, table=[[0.0], [0.0]]).picture


def test_scores_of_several_rounds_say_whose_they_are() -> None:
    found = full()
    found["rounds"] = [{"scores": found["scores"], "training": found["training"]}] * 2
    assert "the first of 2 rounds scored" in _captions(found)["heatmap"][1]


def test_a_task_of_ones_own_is_called_by_its_files_name() -> None:
    found = full()
    found["evaluation"]["tasks"] = {"ds-1": found["evaluation"]["tasks"]["piqa"]}
    page = _Reader(render(found, JOB, {"ds-1": "riddles.jsonl"})).words
    assert "riddles.jsonl" in page
    assert "ds-1" not in page


def test_the_first_version_of_a_report_still_has_its_page() -> None:
    page = _Reader(render(version_0(), JOB))
    assert page.of("id") >= PLOTS - {"accuracy", "stability", "agreement", "flips", "latency"}
    assert "accuracy" not in page.of("id")


def test_a_page_asks_for_nothing_from_anywhere() -> None:
    page = _Reader(render(full(), JOB))
    assert "script" not in page.tags
    assert page.of("style") == set()
    assert page.of("src") == set()
    assert all(href == "data:," or href.startswith(("/v1/jobs/", "/jobs/")) for href in page.of("href"))
    assert "url(" not in render(full(), JOB)
    assert "default-src 'none'" in HEADERS["Content-Security-Policy"]


def _everywhere(value: Any, text: str) -> Any:
    """The value with every string in it, and every name of a data set, task or model, ending in `text`."""
    if isinstance(value, dict):
        own = set(value) & {"piqa", "team/rival", "team/giant", "ds-a74db30d90bb843181a4ba14"}
        return {key + text if key in own else key: _everywhere(each, text) for key, each in value.items()}
    if isinstance(value, list):
        return [_everywhere(each, text) for each in value]
    return value + text if isinstance(value, str) else value


def test_markup_in_any_string_is_shown_and_never_taken_for_markup() -> None:
    report, job = _everywhere(full(), EVIL), _everywhere(JOB, EVIL)
    report["scores"]["better"] = "higher"
    page = render(report, job, {"ds-d267221565bccba402de7cc9" + EVIL: EVIL})
    read = _Reader(page)
    assert not {"script", "img"} & set(read.tags)
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]
    assert EVIL in read.words
    assert "alert(1)</script>" not in page


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(parts=found_by_stages())
def test_whatever_was_found_has_a_page(parts: dict[str, Any]) -> None:
    report = json.loads(json.dumps({**compose(parts, {}), **SURROUNDINGS}))
    assert "nan" not in _attributes_of_svg(render(report, JOB))


def _attributes_of_svg(page: str) -> str:
    numeric = {"x", "y", "cx", "cy", "r", "width", "height", "points", "x1", "x2", "y1", "y2"}
    return " ".join(value for _, name, value in _Reader(page).attributes if name in numeric)


def test_a_bare_report_has_a_page_that_says_what_is_missing() -> None:
    page = render({"metrics": {}}, JOB)
    assert "the evaluation did not run" in page
    assert drawn({"metrics": {}}) == []


def test_several_windows_are_all_drawn_in() -> None:
    report = full()
    report["removed_layers"] = [3, 4, 9, 10, 11]
    assert runs(report["removed_layers"]) == [(3, 5), (9, 12)]
    page = render(report, JOB)
    assert page.count('class="outline"') == 2
    assert "Layers 3 to 4 and layers 9 to 11 of 24 gone" in page


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.data())
def test_the_strip_of_layers_shows_every_layer_once_and_what_was_put_in_behind_what_went(
    kept: list[bool], data: st.DataObject
) -> None:
    layers: list[int | None] = [layer for layer, stays in enumerate(kept) if stays]
    for place in data.draw(st.lists(st.integers(0, len(layers)), max_size=3)):
        layers.insert(place, None)
    strip = strip_of(layers, len(kept))
    assert [part == "kept" for part in strip if part != "new"] == kept
    assert [None if part == "new" else "kept" for part in strip if part != "gone"] == [
        None if layer is None else "kept" for layer in layers
    ]


def test_rounds_and_healing_have_their_courses() -> None:
    report = full()
    phases = report["training"]["phases"]
    report["rounds"] = [{"training": {"phases": phases}}, {"training": {"phases": phases}}]
    report["healing"] = {"phases": [phases[0] | {"loss": "lm"}]}
    read = _Reader(render(report, JOB))
    assert all(name in read.words for name in ("round 1, mse", "round 2, mse", "healing, lm"))


def test_windows_have_their_courses() -> None:
    report = full()
    phases = report["training"]["phases"]
    report["training"] = {"phases": [*phases, *phases], "windows": [{"phases": phases}, {"phases": phases}]}
    read = _Reader(render(report, JOB))
    assert all(name in read.words for name in ("window 1, mse", "window 2, mse"))


def test_a_gate_with_an_interval_shows_it() -> None:
    gate = {"name": "stability/piqa", "limit": 0.8, "value": 0.91, "passed": True, "interval": [0.88, 0.93]}
    assert "0.910 (0.880 to 0.930)" in _Reader(render(full(), JOB | {"gates": [gate]})).words


def test_a_model_of_126_layers_stays_a_page_that_loads() -> None:
    report = full()
    table = [[1 - size / 200 if start + size < 126 else None for size in range(126)] for start in range(126)]
    report["scores"] |= {"layers": 126, "table": table}
    assert len(render(report, JOB)) < 1_200_000


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [(0, 10, 5, [0, 2, 4, 6, 8, 10]), (0.94, 0.99, 5, [0.94, 0.95, 0.96, 0.97, 0.98, 0.99]), (3, 3, 5, [3])],
)
def test_ticks_are_round(low: float, high: float, count: int, expected: list[float]) -> None:
    assert nice_ticks(low, high, count) == expected


def test_a_long_name_keeps_its_end_by_which_it_differs() -> None:
    assert shortened("piqa", 120) == "piqa"
    assert shortened("blimp_anaphor_gender_agreement", 120).endswith("agreement")
    assert len(shortened("x" * 99, 120)) == 15


def test_scales_keep_to_their_ends() -> None:
    assert Scale(0, 10, 100, 0)(15) == 0
    assert Scale(1, 100, 0, 100, log=True)(10) == pytest.approx(50)
    assert Scale(1, 1000, 0, 100, log=True).ticks() == [1, 10, 100, 1000]
    assert (colour(0), colour(1)) == ("#440154", "#fde725")
