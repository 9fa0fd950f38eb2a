"""Values that are each allowed and do not go together: strides and tokens with lengths, gates with what is measured."""

from collections.abc import Iterable, Mapping

from app.core import defaults
from app.core.tasks import Task
from app.errors.requests import ConflictingFields, GateNotMeasured, OutOfRange
from app.jobs.spec.judgement import Gates, TaskGates
from app.jobs.spec.request import JobRequest, PlanRequest


def check_stride(request: JobRequest | PlanRequest, length: int) -> None:
    """Refuse windows with gaps between them, and an overlap of what is held out of the calibration text."""
    stride = request.evaluation.stride
    if stride is None:
        return
    if stride > length:
        raise OutOfRange(
            f"stride is {stride}, which would leave tokens out between windows of {length}; allowed: 1 to {length} "
            "(scoring.sequence_length).",
            pointer="/evaluation/stride",
        )
    if not request.evaluation.perplexity:
        raise ConflictingFields(
            "stride is for evaluation texts, and evaluation.perplexity names none; name one, or leave stride out.",
            pointer="/evaluation/stride",
        )


def check_gates(gates: Gates, tasks: Mapping[str, Task]) -> None:
    """Refuse a bar for what the job does not measure.

    Raises:
        GateNotMeasured: under the gate's pointer.
    """
    _check_task_gates(gates, "/gates", tasks.values(), "evaluation.tasks has no task")
    for name, of_task in (gates.tasks or {}).items():
        pointer = f"/gates/tasks/{name.replace('~', '~0').replace('/', '~1')}"
        if name not in tasks:
            raise GateNotMeasured(
                f"{name} is not among the job's tasks ({', '.join(tasks) or 'it has none'}); add it to "
                "evaluation.tasks, or leave its gates out.",
                pointer=pointer,
            )
        _check_task_gates(of_task, pointer, [tasks[name]], f"{name} is no task")


def _check_task_gates(gates: Gates | TaskGates, pointer: str, tasks: Iterable[Task], without: str) -> None:
    found = list(tasks)
    measured = {
        "min_accuracy_retained": (bool(found), "with questions"),
        "min_stability": (any(task.kind == "choice" for task in found), "whose questions have options"),
        "max_flip_rate": (any(not task.graded for task in found), "with right and wrong answers"),
    }
    for name, (known, needed) in measured.items():
        if getattr(gates, name) is not None and not known:
            raise GateNotMeasured(
                f"This gate cannot be judged: {without} {needed}. Name one in evaluation.tasks, or leave the gate out.",
                pointer=f"{pointer}/{name}",
            )


def check_tokens(request: JobRequest | PlanRequest, dataset: str, *, tokens: int, length: int) -> None:
    """Refuse training tokens that the sampled text does not have, or that make not one sequence."""
    self_text = dataset == defaults.SELF_TEXT
    if self_text and tokens > defaults.SELF_TEXT_TOKENS:
        raise OutOfRange(
            f"tokens is {tokens}, but {defaults.SELF_TEXT} samples at most {defaults.SELF_TEXT_TOKENS}; allowed: "
            f"1 to {defaults.SELF_TEXT_TOKENS}, or name a data set of your own.",
            pointer="/replacement/tokens",
        )
    # Where no evaluation text is named, one sequence of the calibration text is held out.
    needed = sequences_needed(request) * length
    if tokens < needed:
        what = "one sequence" if sequences_needed(request) == 1 else "one sequence to train on and one held out"
        if request.replacement.tokens is None:
            raise OutOfRange(
                f"sequence_length is {length}, too long for {tokens} training tokens; {what} must fit: at most "
                f"{tokens // sequences_needed(request)}.",
                pointer="/scoring/sequence_length",
            )
        raise OutOfRange(
            f"tokens is {tokens}, but {what} of {length} tokens make {needed}; give at least {needed}, or lower "
            "scoring.sequence_length.",
            pointer="/replacement/tokens",
        )


def check_healing(tokens: int, *, most: int, length: int) -> None:
    """Refuse tokens that make not one sequence, or more than there are to train on."""
    if not length <= tokens <= most:
        raise OutOfRange(
            f"tokens is {tokens}, but healing takes whole sequences of {length} tokens from the replacement's {most}; "
            f"allowed: {length} to {most}, or raise replacement.tokens.",
            pointer="/healing/tokens",
        )


def sequences_needed(request: JobRequest | PlanRequest) -> int:
    """Sequences that the calibration text must make: one is held out where no evaluation text is named."""
    return 1 if request.evaluation.perplexity else 2
