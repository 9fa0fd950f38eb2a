"""How commands wait for a job: what is shown meanwhile, and what is left when the job ends or the waiting does."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from app.cli import exits
from app.cli.following import Follower, display
from app.cli.jobs import show_job
from app.cli.options import print_json
from app.cli.pipeline import page_of, refused, summary, unfinished, write_junit, write_summary, write_unknown_junit
from app.cli.refusals import refusal_of, say
from app.client import Job, ProblemError, Streamline, UnreachableError, WaitTimeoutError
from app.client.calls import FINAL_STATES

_EXIT_OF_STATE = {"failed": exits.FAILED_OR_GATE_MISSED, "cancelled": exits.CANCELLED}


def exit_code(job: Mapping[str, Any]) -> int:
    """0 for a job that succeeded and passed its gates, 1 for a failure or a missed gate, 2 for a cancelled job."""
    if job["state"] == "succeeded":
        return exits.PASSED if job["verdict"] != "fail" else exits.FAILED_OR_GATE_MISSED
    return _EXIT_OF_STATE[job["state"]]


@dataclass(frozen=True)
class Outcome:
    """What is left of the waiting."""

    as_json: bool = False
    summary: Path | None = None
    junit: Path | None = None

    def prepare(self) -> None:
        """Make room for the files now: hours later is too late to learn that a name is wrong.

        The test results say that nothing is known yet: a build that is refused or killed shows none of an earlier one.

        Raises:
            OSError: one of them cannot be written.
        """
        for file in (self.summary, self.junit):
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.open("a").close()
        if self.junit:
            write_unknown_junit(
                "streamline", "unknown", "The step ended before the job did; its log says why.", self.junit
            )

    @contextmanager
    def unless_refused(self, heading: str) -> Iterator[None]:
        """Prepare the files; where what is done meanwhile is refused, they say why under this heading.

        Raises:
            OSError: as `prepare`.
        """
        self.prepare()
        try:
            yield
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is not None:
                self._write(
                    refused(heading, refusal.sentence),
                    lambda file: write_unknown_junit("streamline", refusal.code, refusal.sentence, file),
                    Console(stderr=True),
                )
            raise

    def tell(self, job: Job, page: str, console: Console) -> None:
        """Print how the job ended, and write what a pipeline wants of it."""
        if self.as_json:
            print_json(job)
        else:
            show_job(job)
        self._write(summary(job, page), lambda file: write_junit(job, file), console)

    def tell_unfinished(self, job: Job, kind: str, why: str, page: str, console: Console) -> None:
        """The waiting is over and the job goes on: say where it is and how to wait on."""
        hint(console, f"{why} Attach again with: streamline wait {job['id']}")
        if self.as_json:
            print_json(job)
        name = f"streamline {job['spec']['model']['repo']}" if "spec" in job else "streamline"
        self._write(unfinished(job, why, page), lambda file: write_unknown_junit(name, kind, why, file), console)

    def _write(self, markdown: str, write_results: Callable[[Path], None], console: Console) -> None:
        """A disk that is full by now does not change the exit code."""
        try:
            write_summary(markdown, self.summary)
            if self.junit:
                write_results(self.junit)
        except OSError as error:
            hint(console, f"The outcome could not be written: {exits.sentence_of(error)}")


def follow(service: Streamline, known: Job, *, timeout: float | None, outcome: Outcome) -> int:
    """Show a job's progress until it is final; the exit code. Ctrl-C and SIGTERM end the waiting and cancel nothing.

    `known` is the job, or its "id" alone; whatever else it holds is told where the service cannot be asked any more.

    Raises:
        ProblemError: there may be no such job, or the caller may not know of it.
        UnreachableError: nothing was ever heard of the job.
    """
    console = Console(stderr=True)
    service.on_silence = lambda sentence: hint(console, sentence)
    job, job_id = known, known["id"]
    page = page_of(service, job_id)
    try:
        with _sigterm_as_ctrl_c(), display(console) as shown:
            follower = Follower(service, job_id, shown)
            for job in service.watch(job_id, timeout=timeout):
                follower(job)
    except KeyboardInterrupt:
        outcome.tell_unfinished(job, "interrupted", "Stopped waiting; the job goes on.", page, console)
        return exits.INTERRUPTED
    except WaitTimeoutError:
        why = f"Not finished after {timeout:g} s; the job goes on."
        outcome.tell_unfinished(job, "timed_out", why, page, console)
        return exits.TIMED_OUT
    except (UnreachableError, ProblemError) as error:
        if "state" not in job:
            raise
        goes_on = "" if job["state"] in FINAL_STATES else "; the job goes on"
        outcome.tell_unfinished(job, "unreachable", f"The waiting broke off{goes_on}.", page, console)
        return say(error)
    outcome.tell(job, page, console)
    return exit_code(job)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Build servers end a step by SIGTERM: its log is to say as well that the job goes on."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say what a signal does
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def hint(console: Console, sentence: str) -> None:
    """Say it on one line, so that it can be pasted."""
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)
