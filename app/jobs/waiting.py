"""What a queued job waits for, in words for people: the command line and the job's page say the same."""

from collections.abc import Sequence


def waiting_sentence(need: int | None, workers: Sequence[int | None]) -> str:
    """Say whether a worker with the memory that the job needs is there, and only has to be free.

    Args:
        need: GPU memory that the job needs, in bytes; None: any worker may take it.
        workers: the memory of each worker that was seen lately; None: it takes every job.
    """
    if not workers:
        return "No worker has been seen in the last minute; start one with `streamline worker`."
    if not too_large(need, workers):
        return f"It waits for a worker{'' if need is None else f' with {_gigabytes(need)} of memory'} to be free."
    largest = max(memory for memory in workers if memory is not None)
    return (
        f"It needs {_gigabytes(need or 0)} of GPU memory, and the largest worker has {_gigabytes(largest)}: it waits "
        "until there is a larger one."
    )


def too_large(need: int | None, workers: Sequence[int | None]) -> bool:
    """Tell whether none of these workers, of which there is one at least, has the memory that the job needs."""
    known = [memory for memory in workers if memory is not None]
    return need is not None and len(known) == len(workers) and need > max(known)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
