"""Which of several media types a client would rather have (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence

from app.errors.requests import NotAcceptable


def preferred(accept: str | None, offered: Sequence[str]) -> str:
    """The offered media type that the Accept header likes best; the first one on a tie or without a header.

    Raises:
        NotAcceptable: it takes none of them.
    """
    ranges = [_parse(part) for part in (accept or "*/*").split(",") if part.strip()]
    best, best_quality = "", 0.0
    for media_type in offered:
        quality = max(
            ((_specificity(wanted), quality) for wanted, quality in ranges if _matches(wanted, media_type)),
            default=(0, 0.0),
        )[1]
        if quality > best_quality:
            best, best_quality = media_type, quality
    if not best:
        raise NotAcceptable(f"This is available as {' and '.join(offered)}; send one of them as Accept.")
    return best


def _parse(part: str) -> tuple[str, float]:
    media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return media_type, max(0.0, min(1.0, float(value)))
            except ValueError:
                return media_type, 0.0
    return media_type, 1.0


def _matches(wanted: str, offered: str) -> bool:
    return wanted in ("*/*", "*", offered) or wanted == f"{offered.partition('/')[0]}/*"


def _specificity(wanted: str) -> int:
    return 0 if wanted in ("*/*", "*") else 1 if wanted.endswith("/*") else 2
