"""Which starts make sense for which replacement: told from the config alone."""

from __future__ import annotations

from app.core.architectures import FITTED_KINDS, BlockKind, Config, fold_refusal, pre_norm


def init_refusal(config: Config, kind: BlockKind, init: str) -> str | None:
    """Say why a kind of replacement cannot start from `init`, or None where it can."""
    if kind in FITTED_KINDS and init != "closed_form":
        return f"{kind} is fitted in closed form and starts from nothing else; leave init out or use closed_form"
    if init != "closed_form":
        return None
    if kind == "none":
        return "none puts nothing in that could be fitted; leave init out"
    # A block of its own ends in its projection also where the model's layers end in a norm of their sum.
    ends_as_layers_do = kind == "layer" or (kind == "swiglu" and pre_norm(config))
    if ends_as_layers_do and (reason := fold_refusal(config)):
        return f"closed_form fits the down projection of a {kind}, which is not possible here: {reason}; use best"
    return None
