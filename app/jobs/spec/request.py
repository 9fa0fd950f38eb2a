"""The whole request, of a job and of a plan: the model, what is done to it, and where the result goes."""

import hashlib
import json
import re
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.core import defaults
from app.jobs.spec.compression import Calibration, Healing, Replacement, Scoring, Selection, Target
from app.jobs.spec.judgement import Benchmark, Evaluation, Gates
from app.jobs.spec.section import FORBIDDEN, LARGEST_EXACT_INTEGER, Section, Text

_LABEL_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
MAX_LABELS: Final = 32
MAX_LABEL_VALUE: Final = 256


class Model(Section):
    """The dense model, in this service's hub."""

    repo: Text = Field(
        description="Repository in this service's hub, as `namespace/name`.", examples=["demo/stories-24l"]
    )
    revision: Text | None = Field(
        None,
        examples=["main"],
        description="Branch, tag or commit; default `main`. The job keeps the commit that it names at submission.",
    )


class PlannedModel(Section):
    """The dense model of a dry run: a repository of the hub, or a config.json given inline."""

    repo: Text | None = Field(None, description="Repository in this service's hub, as `namespace/name`.")
    revision: Text | None = Field(None, description="Branch, tag or commit; default `main`.")
    config: dict[str, Any] | None = Field(
        None, description="The content of a config.json: no weights are needed and none are looked at."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.repo is None) == (self.config is None):
            raise PydanticCustomError("conflicting_fields", "name exactly one of repo and config")
        if self.config is not None and self.revision is not None:
            raise PydanticCustomError("conflicting_fields", "revision belongs to repo and has no meaning with config")
        return self


class Output(Section):
    """The checkpoint to write."""

    repo: Text | None = Field(
        None,
        examples=["team/llama-streamlined"],
        description="Repository that the result is published to. Default: the model's with `-streamlined`.",
    )
    dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        None, examples=["bfloat16"], description="Default: the model's own."
    )
    format: Literal["auto", "native"] | None = Field(
        None,
        description="Default `auto`: the smallest checkpoint, with a modelling file for `ffn`, `swiglu` and "
        "`linear_residual`. `native`: a stock architecture that needs no code.",
    )


class _Request(Section):
    """Everything of a request but the model."""

    target: Target
    scoring: Scoring = Field(default_factory=Scoring)
    selection: Selection = Field(default_factory=Selection)
    replacement: Replacement = Field(default_factory=Replacement)
    healing: Healing | None = Field(None, description="Default: none.")
    calibration: Calibration = Field(default_factory=Calibration)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    benchmark: Benchmark = Field(default_factory=Benchmark)
    gates: Gates = Field(default_factory=Gates)
    output: Output = Field(default_factory=Output)
    labels: dict[str, str] = Field(
        default_factory=dict,
        description=f"What jobs can be found by: at most {MAX_LABELS}, keys of 1 to 64 letters, digits and `._/-`, "
        f"values of at most {MAX_LABEL_VALUE} characters.",
    )
    seed: int = Field(
        defaults.SEED, ge=0, le=LARGEST_EXACT_INTEGER, description="Same request and seed, same checkpoint bytes."
    )

    @field_validator("labels")
    @classmethod
    def _bounded(cls, labels: dict[str, str]) -> dict[str, str]:
        if len(labels) > MAX_LABELS:
            raise PydanticCustomError("out_of_range", f"has {len(labels)} entries; at most {MAX_LABELS} are allowed")
        for key, value in labels.items():
            if not _LABEL_KEY.fullmatch(key):
                raise PydanticCustomError(
                    "out_of_range",
                    "has a key of another form than 1 to 64 letters, digits, `.`, `_`, `/` and `-`, beginning with a "
                    "letter or digit",
                )
            if len(value) > MAX_LABEL_VALUE or FORBIDDEN.search(value):
                raise PydanticCustomError(
                    "out_of_range",
                    f"has a value of more than {MAX_LABEL_VALUE} characters, or with control characters",
                )
        return labels


class JobRequest(_Request):
    """A compression job. Only `model` and `target` are required."""

    model: Model

    def digest(self) -> str:
        """Sha256 of what is asked for: equal for two bodies exactly if they mean the same."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


class PlanRequest(_Request):
    """The same body as a job's; the model may also be a config given inline."""

    model: PlannedModel
