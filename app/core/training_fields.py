"""Fields that say how a replacement is trained: of a kind that is not, they would do nothing and mislead a study."""

from collections.abc import Mapping
from typing import Any, Final

from app.core import defaults
from app.core.architectures import FITTED_KINDS, BlockKind

TRAINED_KINDS: Final = ("layer", "swiglu", "ffn")
OF_TRAINING: Final = frozenset(
    {"loss", "divergence", "epochs", "learning_rate", "second_epochs", "second_learning_rate", "batch_size"}
)
"""Fields of a replacement that only training makes use of."""

# The rates' and the batch's defaults depend on the model: a resolved specification that is tried on another one names
# numbers that nobody has asked for.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "loss": defaults.LOSS,
    "divergence": defaults.DIVERGENCE,
    "epochs": defaults.EPOCHS,
    "second_epochs": defaults.SECOND_EPOCHS,
}


def idle_field(kind: BlockKind, given: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the first field that asks something of a training that there is none of, and why; None where none does.

    What names its default is let through: it asks for nothing, and resolved specifications name every field.

    Args:
        kind: the replacement.
        given: fields of the replacement by name; None is not given.
    """
    if kind in TRAINED_KINDS:
        return None
    for name, default in _DEFAULTS.items():
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
