"""The simulation of a fleet keeps the rules of the service's queues, and agrees with queueing theory."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dispatch.memory_classes import queue_for, queues_of
from benchmarks.capacity import KINDS, run
from benchmarks.capacity_model import (
    DAY,
    DEFAULT,
    H100,
    H200,
    L4,
    MEASURED,
    MODELS,
    SECONDS_MEASURED,
    Mix,
    Model,
    arrivals,
    job_seconds,
)
from benchmarks.capacity_simulation import Outcome, Waiting, simulate

GB = 10**9


@dataclass(frozen=True)
class Fake:
    """A card of which the memory alone matters."""

    memory_bytes: int


JOBS = st.lists(st.tuples(st.floats(0, 1000), st.integers(1, 200), st.floats(0.1, 500)), max_size=60)
CARDS = st.lists(st.integers(8, 200), min_size=1, max_size=6)


def simulated(jobs: list[tuple[float, int, float]], cards: list[int]) -> Outcome[float]:
    coming = [Waiting(at, need * GB, seconds) for at, need, seconds in sorted(jobs)]
    return simulate(coming, [Fake(memory * GB) for memory in cards], lambda seconds, _: seconds)


@given(jobs=JOBS, cards=CARDS)
def test_every_job_runs_once_on_a_card_that_holds_it_or_never_on_none(
    jobs: list[tuple[float, int, float]], cards: list[int]
) -> None:
    outcome = simulated(jobs, cards)
    came = sorted((each.waiting.at, each.waiting.need, each.waiting.job) for each in outcome.runs)
    came += sorted((each.at, each.need, each.job) for each in outcome.never)
    assert sorted(came) == sorted((at, need * GB, seconds) for at, need, seconds in jobs)
    for each in outcome.runs:
        assert queue_for(each.waiting.need) in queues_of(cards[each.worker] * GB)
        assert each.start >= each.waiting.at
        assert each.end == each.start + each.waiting.job
    assert all(queue_for(each.need) not in queues_of(card * GB) for each in outcome.never for card in cards)


@given(jobs=JOBS, cards=CARDS)
def test_a_card_does_one_job_at_a_time_and_none_is_idle_while_a_job_waits_for_it(
    jobs: list[tuple[float, int, float]], cards: list[int]
) -> None:
    outcome = simulated(jobs, cards)
    for worker, memory in enumerate(cards):
        mine = sorted((each.start, each.end) for each in outcome.runs if each.worker == worker)
        assert all(first[1] <= second[0] for first, second in pairwise(mine))
        edges = [0.0, *(edge for pair in mine for edge in pair), float("inf")]
        for gap in zip(edges[::2], edges[1::2], strict=True):
            for each in outcome.runs:
                if queue_for(each.waiting.need) in queues_of(memory * GB):
                    overlap = min(gap[1], each.start) - max(gap[0], each.waiting.at)
                    assert overlap <= 1e-9, "it could have been taken"


@given(jobs=JOBS)
def test_jobs_of_one_class_begin_in_the_order_in_which_they_came(jobs: list[tuple[float, int, float]]) -> None:
    runs = simulated(jobs, [200, 24, 24]).runs
    for name in {queue_for(each.waiting.need) for each in runs}:
        came = [each.waiting.at for each in runs if queue_for(each.waiting.need) == name]
        assert came == sorted(came)


def test_a_free_card_takes_the_largest_job_that_it_can() -> None:
    jobs = [(0.0, 5, 10.0), (1.0, 5, 1.0), (2.0, 70, 1.0), (3.0, 20, 1.0), (4.0, 150, 1.0)]
    outcome = simulated(jobs, [85])
    assert [each.waiting.need // GB for each in outcome.runs] == [5, 70, 20, 5]
    assert [each.need // GB for each in outcome.never] == [150]


@pytest.mark.parametrize(("variance", "load"), [(1.0, 0.7), (0.0, 0.8)])
def test_one_card_waits_as_pollaczek_and_khinchine_say(variance: float, load: float) -> None:
    """M/M/1 (variance 1) and M/D/1 (0): the mean wait is load / (1 - load) x (1 + variance) / 2 services."""
    random = np.random.default_rng(1)
    number = 50_000
    came = np.cumsum(random.exponential(1 / load, number))
    services = random.exponential(1.0, number) if variance else np.ones(number)
    coming = [Waiting(float(at), GB, float(each)) for at, each in zip(came, services, strict=True)]
    outcome = simulate(coming, [Fake(8 * GB)], lambda seconds, _: seconds)
    mean = np.mean([each.waited for each in outcome.runs])
    assert mean == pytest.approx(load / (1 - load) * (1 + variance) / 2, rel=0.08)


def test_the_formula_gives_the_run_that_was_measured() -> None:
    assert job_seconds(Model.of("7B"), MEASURED, H200) == pytest.approx(SECONDS_MEASURED, abs=2)


def test_larger_models_and_slower_cards_take_longer() -> None:
    models = [Model.of(name) for name in MODELS]
    assert sorted(models, key=lambda model: model.counts.dense) == models
    for card in KINDS:
        times = [job_seconds(model, DEFAULT, card) for model in models if model.memory.whole <= card.memory_bytes]
        assert times == sorted(times)
    assert job_seconds(models[0], DEFAULT, L4) > job_seconds(models[0], DEFAULT, H100)


def test_as_many_jobs_come_as_are_asked_for_most_of_them_at_night() -> None:
    jobs = arrivals(1000, 5, Mix(), seed=3)
    assert len(jobs) == pytest.approx(5000, rel=0.05)
    hours = np.histogram([job.at % DAY / 3600 for job in jobs], bins=24, range=(0, 24))[0] / 5
    assert hours.argmax() in {1, 2}
    assert 1.5 < hours.max() / hours.mean() < 5
    assert [job.at for job in jobs] == sorted(job.at for job in jobs)
    assert jobs == arrivals(1000, 5, Mix(), seed=3), "a seed is a day"


def test_more_cards_of_every_kind_make_nobody_wait_longer_and_are_used_less() -> None:
    jobs = arrivals(1000, 2, Mix(), seed=5)
    few, _ = run(jobs, (10, 6, 5), 2)
    many, _ = run(jobs, (40, 24, 20), 2)
    assert few.never == many.never == 0
    for name in few.waits:
        assert many.quantile(name, 0.95) <= few.quantile(name, 0.95)
    assert all(0 < many.utilisation[card.name] < few.utilisation[card.name] <= 1 for card in KINDS)
