"""Fields that say how a replacement is trained: of a kind that is not, they would do nothing and mislead a study."""

from collections.abc import Mapping
from typing import Any

from app.core import defaults
from app.core.architectures import FITTED_KINDS, BlockKind, Config

TRAINED_KINDS = ("layer", "swiglu", "ffn")


def idle_field(kind: BlockKind, given: Mapping[str, Any], config: Config) -> tuple[str, str] | None:
    """Return the first field that asks something of a training that there is none of, and why; None where none does.

    What names its default is let through: it asks for nothing, and resolved specifications name every field.

    Args:
        kind: the replacement.
        given: fields of the replacement by name; None is not given.
        config: of the model, which the default rate depends on.
    """
    if kind in TRAINED_KINDS:
        return None
    for name, default in _defaults(config).items():
        value = given.get(name)
        if value is not None and value != default:
            why = (
                "is fitted in closed form and not trained" if kind in FITTED_KINDS else "puts nothing in to be trained"
            )
            return name, (
                f"{name} is {value}, but {kind} {why}; leave {name} out, or use replacement.kind "
                f"{', '.join(TRAINED_KINDS[:-1])} or {TRAINED_KINDS[-1]}"
            )
    return None


def _defaults(config: Config) -> dict[str, Any]:
    rate = defaults.learning_rate(config)
    return {
        "loss": defaults.LOSS,
        "divergence": defaults.DIVERGENCE,
        "epochs": defaults.EPOCHS,
        "learning_rate": rate,
        "second_epochs": defaults.SECOND_EPOCHS,
        "second_learning_rate": rate * defaults.SECOND_LEARNING_RATE_SHARE,
    }
