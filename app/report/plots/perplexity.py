"""Perplexity per text: dense, only cut, pruned."""

from collections.abc import Mapping
from typing import Any

from app.report.quantities import digits, ratio
from app.report.svg import WIDTH, Plot, Scale, Table, picture, shortened, tag, words

LEFT, RIGHT, ROW, GROUP = 62, WIDTH - 96, 24, 34
VARIANTS = ("dense", "cut", "pruned")


def draw(report: Mapping[str, Any]) -> Plot | None:
    """A group of three bars per text; each says its value and how it stands to the dense model."""
    evaluation = report.get("evaluation")
    if not evaluation or not evaluation["perplexity"]:
        return None
    texts = evaluation["perplexity"]
    known = [value for text in texts.values() for name in VARIANTS if (value := text[name]) is not None]
    if not known:
        return None
    scale = Scale(0, max(known), 0, RIGHT - LEFT)
    parts, rows, y = [], [], 4.0
    for name, text in texts.items():
        parts.append(words(0, y + 14, shortened(name, WIDTH), kind="axis"))
        y += 26
        for variant in VARIANTS:
            value = text[variant]
            of_dense = value / text["dense"] if value is not None and text["dense"] else None
            said = digits(value) + (f" · {ratio(of_dense)}" if variant != "dense" and of_dense else "")
            width = scale(value) if value is not None else 0.0
            hint = tag("title", f"{name}, {variant}: {said}")
            parts += [
                words(LEFT - 8, y + 14, variant, anchor="end"),
                tag("rect", hint, x=LEFT, y=y, width=max(width, 1.0), height=ROW - 5, rx=3, class_=f"fill {variant}"),
                words(LEFT + width + 7, y + 14, said, kind="value"),
            ]
            y += ROW
        y += GROUP - ROW
        ratios = [ratio(text.get("cut_ratio")), ratio(text.get("ratio"))]
        rows.append([name, *(digits(text[variant]) for variant in VARIANTS), *ratios, f"{text.get('tokens', 0):,}"])
    drawing = picture(
        "perplexity",
        "Perplexity per text",
        "; ".join(f"{row[0]}: dense {row[1]}, only cut {row[2]}, pruned {row[3]}" for row in rows),
        y - 4,
        *parts,
    )
    held_out = " On a held-out part of the calibration text." if evaluation.get("held_out") else ""
    caption = f"Lower is better. “Cut” is the same window removed with nothing in its place.{held_out}"
    table = Table(("text", *VARIANTS, "cut / dense", "pruned / dense", "tokens"), rows)
    return Plot("perplexity", "Perplexity", caption, drawing, table)
