"""The embedded broker loses and doubles no message, whoever sends and takes at the same time."""

import multiprocessing
import time
from multiprocessing.synchronize import Event
from pathlib import Path

from kombu.exceptions import OperationalError

from app.dispatch.queue import QUEUE, broker_reachable, enqueue, make_celery
from app.settings import Settings


def _take(data_dir: str, over: Event, taken: "multiprocessing.Queue[str]") -> None:
    """Take messages until it is over and nothing is left."""
    celery = make_celery(Settings(data_dir=Path(data_dir)))
    with celery.connection_for_read() as connection:
        queue = connection.SimpleQueue(QUEUE)
        while True:
            last = over.is_set()
            try:
                message = queue.get(timeout=0.3)
            except queue.Empty:
                if last:
                    return
                continue
            except OperationalError:
                continue
            taken.put(message.payload[0][0])
            message.ack()


def test_every_message_is_taken_by_exactly_one_of_several_workers(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    taken: multiprocessing.Queue[str] = context.Queue()
    over = context.Event()
    workers = [context.Process(target=_take, args=(str(tmp_path), over, taken)) for _ in range(3)]
    for worker in workers:
        worker.start()
    celery = make_celery(Settings(data_dir=tmp_path))
    sent = [f"job{n}" for n in range(200)]
    for job in sent:
        assert enqueue(celery, job)
    got = [taken.get(timeout=300) for _ in sent]
    over.set()
    for worker in workers:
        worker.join()
    assert taken.empty()
    assert sorted(got) == sorted(sent)


def test_a_broker_that_is_away_is_reported_and_does_not_raise(tmp_path: Path) -> None:
    celery = make_celery(Settings(data_dir=tmp_path, broker_url="redis://127.0.0.1:1/0"))
    began = time.monotonic()
    assert not enqueue(celery, "job")
    assert not broker_reachable(celery)
    assert time.monotonic() - began < 10, "a request would wait for it"


def test_the_embedded_broker_is_reachable(tmp_path: Path) -> None:
    assert broker_reachable(make_celery(Settings(data_dir=tmp_path)))
