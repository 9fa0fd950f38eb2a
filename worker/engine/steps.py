"""The way of a run, step by step: stages once each, one stage per window, or all that make a checkpoint per round.

Of several windows of one score table each is trained for in a directory of its own, on the states of the dense model,
and one assembly takes them all. Of several rounds each is a run of one window on the checkpoint that the round before
left; the last one works in the run's own workspace, and what follows compares its checkpoint with the dense model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.core.selection import ONE_WINDOW, ParameterCounts, SelectionError, Target, round_layers, window_size
from worker.engine import fetch
from worker.engine.context import REPLACEMENT, SELF_TEXT_FILE, WINDOWS, StageContext, StageFunction
from worker.engine.errors import EngineError
from worker.engine.events import Part
from worker.engine.recipe import ModelSource, Recipe

ROUNDS = "rounds"
"""Where each round but the last has a workspace, counted from 1."""

CHECKPOINT = "checkpoint"
_NOTHING: Mapping[str, str] = {}
_OF_A_ROUND = frozenset({"fetch", "score", "select", "train", "heal", "assemble", "verify"})

Parts = Callable[[Recipe], Mapping[str, Any]]


@dataclass(frozen=True)
class Stage:
    """One kind of step.

    Attributes:
        name: as in the contract.
        run: does the work and writes the outputs.
        parts: what of the recipe it depends on.
        reads: outputs of earlier stages that it depends on; a directory stands for all files in it.
        outputs: files and directories that it writes; those it leaves out (the replacement of `none`) may be absent.
        reported: the stage of the contract that it is a step of, where it is no stage itself.
        wanted: whether a recipe asks for it; all do by default.
    """

    name: str
    run: StageFunction
    parts: Parts
    reads: tuple[str, ...]
    outputs: tuple[str, ...]
    reported: str = ""
    wanted: Callable[[Recipe], bool] = lambda _: True


@dataclass(frozen=True)
class Step:
    """A stage at work on one model.

    Attributes:
        stage: what is done.
        context: where and with what recipe.
        key: its name in the ledger.
        reads: as the stage's, from the run's workspace.
        outputs: as the stage's, from the run's workspace.
        part: which window or round it is for, where there are several.
        releases: an output of an earlier step that nothing needs once this one is done.
    """

    stage: Stage
    context: StageContext
    key: str
    reads: tuple[str, ...]
    outputs: tuple[str, ...]
    part: Part | None = None
    releases: str | None = None

    @property
    def wanted(self) -> bool:
        """Whether the recipe asks for it."""
        return self.stage.wanted(self.context.recipe)


def first_step(context: StageContext, stages: Sequence[Stage]) -> Step:
    """Return the step that every run begins with; the others may depend on what it finds."""
    if _rounds(context) == 1:
        return _step(stages[0], context, "")
    return _round(context, stages[:1], 1, context.recipe)[0]


def further_steps(context: StageContext, stages: Sequence[Stage]) -> list[Step]:
    """Return what follows on the first step.

    Raises:
        EngineError: the target cannot be split over so many rounds of this model.
    """
    if _rounds(context) > 1:
        return _in_rounds(context, stages)
    if context.recipe.selection.windows > 1:
        return [step for stage in stages[1:] for step in _for_windows(context, stage)]
    return [_step(stage, context, "") for stage in stages[1:]]


def workspace_of_round(number: int, rounds: int) -> str:
    """Return where a round works, from the run's workspace and with a slash behind; the last has that one itself."""
    return "" if number == rounds else f"{ROUNDS}/{number}/"


def _rounds(context: StageContext) -> int:
    selection = context.recipe.selection
    return selection.rounds if selection.mode == "iterative" else 1


def _step(stage: Stage, context: StageContext, place: str, elsewhere: Mapping[str, str] = _NOTHING) -> Step:
    """Return a step that works in `place`; `elsewhere` are the places of what it reads that lies in others."""
    reads = (f"{elsewhere.get(name, place)}{name}" for name in stage.reads)
    outputs = (f"{place}{name}" for name in stage.outputs)
    return Step(stage, context, f"{place}{stage.name}", tuple(reads), tuple(outputs))


def _for_windows(context: StageContext, stage: Stage) -> list[Step]:
    count = context.recipe.selection.windows
    places = [f"{WINDOWS}/{number}/" for number in range(1, count + 1)]
    if stage.name == "train":
        steps = []
        for number, place in enumerate(places, start=1):
            own = replace(
                context,
                recipe=replace(context.recipe, selection=ONE_WINDOW),
                workspace=context.workspace / place,
                home=context.workspace,
            )
            step = _step(stage, own, place, {fetch.OUTPUT: "", SELF_TEXT_FILE: ""})
            steps.append(replace(step, part=("window", number, count)))
        return steps
    step = _step(stage, context, "")
    if stage.name == "select":
        return [
            replace(step, outputs=(*step.outputs, *(f"{place}{name}" for place in places for name in step.outputs)))
        ]
    # Where one window has a file beside the others, several have one each.
    reads = [name for name in step.reads if name != REPLACEMENT]
    each = [f"{place}{REPLACEMENT}" for place in places] if len(reads) < len(step.reads) else []
    return [replace(step, reads=(*reads, *each))]


def _in_rounds(context: StageContext, stages: Sequence[Stage]) -> list[Step]:
    recipe, rounds = context.recipe, _rounds(context)
    model = context.read_json(workspace_of_round(1, rounds) + fetch.OUTPUT)
    counts = ParameterCounts(tuple(model["per_layer_parameters"]), model["outside_parameters"])
    block, config = recipe.replacement, fetch.read_config(context.model)
    form, selection = recipe.output.format, recipe.selection
    try:
        size = window_size(config, recipe.target, block.kind, form, counts, block.layers, selection)
    except SelectionError as error:
        raise EngineError(error.code, str(error)) from error
    steps: list[Step] = []
    for number, fewer in enumerate(round_layers(size, rounds), start=1):
        # What is healed is the result.
        own = replace(recipe, target=Target(layers=fewer), healing=recipe.healing if number == rounds else None)
        steps += _round(context, stages, number, own)[int(number == 1) :]
    first = workspace_of_round(1, rounds)
    judging = replace(context, home=context.workspace / first, memo={})
    rest = [stage for stage in stages if stage.name not in _OF_A_ROUND]
    return steps + [_step(stage, judging, "", {fetch.OUTPUT: first, SELF_TEXT_FILE: first}) for stage in rest]


def _round(context: StageContext, stages: Sequence[Stage], number: int, recipe: Recipe) -> list[Step]:
    """Return the steps of one round; `recipe` is that of a run of one window but for its model."""
    rounds = _rounds(context)
    place, before, first = (workspace_of_round(n, rounds) for n in (number, number - 1, 1))
    previous = context.workspace / before if number > 1 else None
    if previous:
        model = recipe.model
        source = ModelSource(str(previous / CHECKPOINT), model.name, f"{model.revision} after round {number - 1}")
        recipe = replace(recipe, model=source)
    own = replace(
        context,
        recipe=replace(recipe, selection=ONE_WINDOW),
        workspace=context.workspace / place,
        home=context.workspace / first if previous else None,
        previous=previous,
        memo={},
    )
    part: Part = ("round", number, rounds)
    made = (_step(stage, own, place, {SELF_TEXT_FILE: first}) for stage in stages if stage.name in _OF_A_ROUND)
    steps = [replace(step, part=part) for step in made]
    return _after_a_round(steps, before) if previous else steps


def _after_a_round(steps: Sequence[Step], before: str) -> list[Step]:
    """Return the steps of a round on the checkpoint of the round before, which works in the place `before`."""
    further = {"fetch": f"{before}{CHECKPOINT}", "select": f"{before}selection.json"}
    first, *rest = (
        replace(step, reads=(*step.reads, further[step.stage.name])) if step.stage.name in further else step
        for step in steps
    )
    # What its model is, the hashes tell that it reads: once the files are used up they go.
    fetching = replace(first.stage, parts=lambda recipe: {"target": recipe.to_json()["target"]})
    rest[-1] = replace(rest[-1], releases=f"{before}{CHECKPOINT}")
    return [replace(first, stage=fetching), *rest]
