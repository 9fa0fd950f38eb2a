"""What is known of a model that a request names: its config, its parameters, and whether it can be cut at all."""

from dataclasses import dataclass
from typing import Final

from app.core import architectures
from app.core.architectures import ArchitectureError, Config
from app.core.selection import ParameterCounts
from app.errors.references import PlanNeedsWeights, UnreadableModel, UnsupportedFamily, UnsupportedModel
from app.errors.requests import InvalidRequest

MAX_LAYERS: Final = 4096
"""No decoder is deeper; a config that says so would only make the planner count to it."""

MAX_PARAMETERS: Final = 10**15
"""Far above every model; beyond it shares are no longer exact in floating point."""

DTYPE_BYTES: Final = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class ModelFacts:
    """What a request is resolved against."""

    config: Config
    counts: ParameterCounts
    repo: str | None = None
    """None for a config given inline."""
    commit: str | None = None
    """The commit that the requested revision names."""
    dtype: str | None = None
    """The one dtype of all weights; None where it is mixed or of another kind."""

    @property
    def pointer(self) -> str:
        """JSON pointer of what names the model in the request."""
        return "/model/config" if self.repo is None else "/model/repo"


@dataclass(frozen=True)
class RivalFacts:
    """A checkpoint that is timed beside the dense and the pruned one."""

    repo: str
    commit: str
    positions: int
    own_code: bool = False
    """Whether it brings modelling code of its own."""


def inline_facts(config: Config) -> ModelFacts:
    """The facts of a config given inline.

    Raises:
        PlanNeedsWeights: no formula for its family.
        UnsupportedModel: it cannot be cut.
        UnreadableModel: a size in it makes no sense.
    """
    try:
        architectures.refuse_uncuttable(config)
        check_sizes(config)
        counts = ParameterCounts.from_config(config)
        if not 0 < counts.dense <= MAX_PARAMETERS:
            raise ArchitectureError(f"config.json: its sizes make more than {MAX_PARAMETERS:.0e} parameters, or none")
    except (architectures.UnsupportedFamily, architectures.NoFormula):
        raise PlanNeedsWeights(
            f"For model family {config.get('model_type')!r} no formula is known; those with one: "
            f"{', '.join(architectures.FAMILIES)}. Import the model into the hub and name its repo instead of the "
            "config.",
            pointer="/model/config",
        ) from None
    except architectures.CannotBeCut as error:
        raise model_problem(error, "/model/config") from None
    except (ArchitectureError, ArithmeticError, TypeError, ValueError) as error:
        raise UnreadableModel(f"{error}. Give the config.json as it is.", pointer="/model/config") from None
    return ModelFacts(config, counts, dtype=config_dtype(config))


def check_sizes(config: Config) -> None:
    """Refuse a depth that no model has, before anything counts up to it.

    Raises:
        ArchitectureError: unknown family, or a layer count that is none.
    """
    layers = architectures.layer_count(config)
    if layers > MAX_LAYERS:
        raise ArchitectureError(f"config.json: {layers} layers are more than the {MAX_LAYERS} that a model may have")


def config_dtype(config: Config) -> str | None:
    """The dtype that a config names for its weights; None where it names none of ours."""
    named = config.get("dtype", config.get("torch_dtype"))
    return named if isinstance(named, str) and named in DTYPE_BYTES else None


def model_problem(error: ArchitectureError, pointer: str) -> InvalidRequest:
    """What to say about a config that cannot be worked with."""
    if isinstance(error, architectures.UnsupportedFamily):
        return UnsupportedFamily(str(error), pointer=pointer)
    if isinstance(error, architectures.OwnModellingCode | architectures.CannotBeCut):
        return UnsupportedModel(f"The model cannot be compressed: {error}.", pointer=pointer)
    return UnreadableModel(f"{error}.", pointer=pointer)
