"""Numbers as people read them: with a unit and few digits."""

import math
from collections.abc import Mapping
from typing import Any, Final

UNKNOWN: Final = "not measured"
NOT_A_NUMBER: Final = "not a number"


def count(value: float | None) -> str:
    """4,954,240 as 4.95 M."""
    return _scaled(value, 1000, ("", " K", " M", " G", " T", " P"))


def size(value: float | None) -> str:
    """Bytes, as powers of 1000: 9.93 MB."""
    return _scaled(value, 1000, (" B", " kB", " MB", " GB", " TB", " PB"))


def seconds(value: float | None) -> str:
    """From microseconds to hours."""
    if value is None:
        return UNKNOWN
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{digits(value * 1e3)} ms"
    if value < 120:
        return f"{digits(value)} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def ratio(value: float | None) -> str:
    """×1.03."""
    return NOT_A_NUMBER if value is None else f"×{digits(value)}"


def percent(value: float | None) -> str:
    """0.261 as 26.1 %."""
    return UNKNOWN if value is None else f"{value * 100:.1f} %"


def change(value: float | None) -> str:
    """A ratio as what it adds or takes: 0.74 as −26 %."""
    if value is None:
        return ""
    return f"{'−' if value < 1 else '+'}{abs(value - 1) * 100:.0f} %"


def digits(value: float | None, missing: str = NOT_A_NUMBER) -> str:
    """Three significant digits, thousands apart."""
    if value is None or not math.isfinite(value):
        return missing
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.2g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value)) + 1e-12))
    return f"{value:.{decimals}f}"


def moment(time: str) -> str:
    """An ISO time to the minute."""
    return f"{time[:16].replace('T', ' ')} UTC" if time else ""


def between(pair: Mapping[str, Any], first: str = "dense", second: str = "pruned") -> float | None:
    """The second over the first; None where one is unknown or zero."""
    a, b = pair.get(first), pair.get(second)
    return b / a if a and b is not None else None


def _scaled(value: float | None, step: float, units: tuple[str, ...]) -> str:
    if value is None:
        return UNKNOWN
    exponent = 0
    while abs(value) >= step * 0.9995 and exponent < len(units) - 1:
        value, exponent = value / step, exponent + 1
    return f"{value:g}{units[0]}" if exponent == 0 else f"{digits(value)}{units[exponent]}"
