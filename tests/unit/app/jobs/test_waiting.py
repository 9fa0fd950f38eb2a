"""What people are told of a job that waits."""

import pytest

from app.jobs.waiting import waiting_sentence


@pytest.mark.parametrize(
    ("need", "workers", "said"),
    [
        (18_000_000_000, [24, 80], "It waits for a worker with 18.0 GB of memory to be free."),
        (90_000_000_000, [24, 80], "It needs 90.0 GB of GPU memory, and the largest worker has 80.0 GB"),
        (90_000_000_000, [24, None], "It waits for a worker with 90.0 GB of memory to be free."),
        (None, [24], "It waits for a worker to be free."),
        (18_000_000_000, [], "No worker has been seen in the last minute"),
    ],
)
def test_a_job_that_waits_says_for_which_worker(need: int | None, workers: list[int | None], said: str) -> None:
    assert waiting_sentence(need, [each and each * 10**9 for each in workers]).startswith(said)
