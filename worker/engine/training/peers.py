"""The further processes of a training run: started for it alone, ended with it, and with their parent however it ends.

A peer is this engine without most of its stages: it opens the same model, maps the same activations and runs the same
loop. It writes nothing and tells nobody but its parent.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.core.leash import follow_parent
from worker.engine.context import StageContext, write_json
from worker.engine.errors import EngineError
from worker.engine.training.group import ALONE, Group, member

_GRACE_SECONDS = 5.0
"""Between the break of a connection and the end of the process behind it, and for a peer that is done to leave."""

_READY = "ready\n"


@dataclass(frozen=True)
class _Peer:
    rank: int
    process: subprocess.Popen[str]
    complaints: Path


@contextmanager
def joined(context: StageContext, step: str) -> Iterator[Group]:
    """Have the peers that `context.processes` asks for run the loop of `step` too, until the context ends.

    Args:
        context: of the step.
        step: `train` or `heal`.

    Raises:
        EngineError: `peer_failed` where one of them ended before its time.
    """
    size = shared_by(context, step)
    if size == 1:
        yield ALONE
        return
    with tempfile.TemporaryDirectory(prefix="streamline-") as scratch:
        meeting = Path(scratch) / "meeting"
        peers: list[_Peer] = []
        try:
            for rank in range(1, size):
                peers.append(_start(context, step, rank, size, meeting))
            for peer in peers:
                assert peer.process.stdout
                if peer.process.stdout.readline() != _READY:
                    raise _failure(peer, size)
            with member(0, size, context.device, meeting) as group:
                yield group
            for peer in peers:
                if peer.process.wait(_GRACE_SECONDS) != 0:
                    raise _failure(peer, size)
        except Exception as error:
            # A broken connection is the consequence; the process that broke it is the reason.
            if not isinstance(error, EngineError) and (broken := _first_ended(peers)):
                raise _failure(broken, size) from error
            raise
        finally:
            for peer in peers:
                peer.process.kill()
                with peer.process:  # closes its pipes and waits
                    pass


def shared_by(context: StageContext, step: str) -> int:
    """Return how many processes share a step's batches: no more than a batch has sequences, or some would have none."""
    recipe = context.recipe
    batch = recipe.healing.batch_size if step == "heal" and recipe.healing else recipe.replacement.batch_size
    return min(context.processes, batch)


def _start(context: StageContext, step: str, rank: int, size: int, meeting: Path) -> _Peer:
    recipe = meeting.with_name("recipe.json")  # of this window or round
    write_json(recipe, context.recipe.to_json())
    home = ["--home", str(context.home)] if context.home else []
    command = [
        sys.executable, "-m", "worker.engine.training.peers", step, "--workspace", str(context.workspace),
        "--recipe", str(recipe), *home,
        "--cache", str(context.cache), "--device", context.device, "--rank", str(rank),
        "--processes", str(size), "--meeting", str(meeting),
    ]  # fmt: skip
    complaints = meeting.with_name(f"{rank}.log")
    with complaints.open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
    return _Peer(rank, process, complaints)


def _first_ended(peers: Sequence[_Peer]) -> _Peer | None:
    for peer in peers:
        with suppress(subprocess.TimeoutExpired):
            if peer.process.wait(_GRACE_SECONDS / len(peers)) != 0:
                return peer
    return None


def _failure(peer: _Peer, processes: int) -> EngineError:
    with suppress(subprocess.TimeoutExpired):
        peer.process.wait(_GRACE_SECONDS)
    lines = peer.complaints.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = f": {lines[-1].strip()}" if lines else ""
    return EngineError(
        "peer_failed",
        f"training process {peer.rank + 1} of {processes} ended with code {peer.process.returncode}{last}",
        permanent=False,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Be a peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("train", "heal"))
    parser.add_argument("--home", type=Path)
    for name in ("workspace", "recipe", "cache", "meeting"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("rank", "processes"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--device", required=True)
    options = parser.parse_args(arguments)
    follow_parent()
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print where they like

    import torch

    from worker.engine.events import silent
    from worker.engine.healing import stage as healing
    from worker.engine.recipe import Recipe
    from worker.engine.training import stage as training

    if options.device == "cuda":
        torch.cuda.set_device(options.rank)
    recipe = Recipe.from_json(json.loads(options.recipe.read_text(encoding="utf-8")))
    context = StageContext(
        recipe, options.workspace, options.cache, silent(), options.device,
        processes=options.processes, home=options.home,
    )  # fmt: skip

    @contextmanager
    def joining() -> Iterator[Group]:
        answers.write(_READY)
        answers.flush()
        with member(options.rank, options.processes, options.device, options.meeting) as group:
            yield group

    {"train": training.assist, "heal": healing.assist}[options.step](context, joining())
    os._exit(0)  # without finalization, as the engine itself does and for the same reason


if __name__ == "__main__":
    main()
