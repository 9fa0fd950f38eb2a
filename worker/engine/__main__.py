"""``python -m worker.engine``: the whole compression with no server, broker or database.

Exit codes: 0 done, 1 failed (the last event says why), 64 bad usage (one sentence on stderr), 143 stopped by SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn, TextIO

from app.core.leash import follow_parent
from worker.engine.console import ConsoleSink, print_summary
from worker.engine.errors import EngineError, Stopped
from worker.engine.events import Emitter, JsonLines
from worker.engine.finished_run import refuse_other_run
from worker.engine.recipe import Recipe
from worker.engine.recipe_file import recipe_of_file
from worker.engine.request import add_arguments, check_flags, recipe_from
from worker.engine.request_checks import check, check_texts

EXIT_FAILED = 1
EXIT_USAGE = 64  # EX_USAGE of sysexits.h
EXIT_STOPPED = 128 + signal.SIGTERM

_EXAMPLES = """\
examples:
  # Remove a quarter of the parameters; put one trained decoder layer in their place; no data needed.
  python -m worker.engine --model ./llama --out ./run --sparsity 0.25

  # Just cut six layers, chosen on your own text, and measure on a held-out file.
  python -m worker.engine --model ./llama --out ./cut --layers 6 --kind none \\
      --calibration train.jsonl --evaluate test.jsonl

  # Replace exactly layers 20..27, and print events as JSON lines for a program.
  python -m worker.engine --model ./llama --out ./window --window 20 28 --json

  # Run a fully resolved recipe, as a previous run left it in OUT/recipe.json.
  python -m worker.engine --recipe ./run/recipe.json --out ./again

  # Repeat a job of a service: its recipe does not tell where model and texts lay.
  python -m worker.engine --recipe ./recipe.json --out ./again --model ./llama --calibration train.jsonl

The result is a Hugging Face directory in OUT/checkpoint, with the measurements in OUT/report.json. A run that was
stopped goes on from its last finished stage when it is started again with the same arguments.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(EXIT_USAGE)


def make_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = _Parser(
        prog="python -m worker.engine",
        description="Compress a causal language model: remove the layers that change least, train a light replacement, "
        "write a checkpoint, prove and measure it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the engine and return the exit code."""
    options = make_parser().parse_args(arguments)
    os.environ.setdefault("TQDM_DISABLE", "1")  # the engine tells its own progress
    if options.leashed:
        follow_parent(whole_group=True)
    # Libraries print where they like; only events may reach the reader of stdout.
    stream = _own_stdout() if options.json else sys.stdout
    signal.signal(signal.SIGTERM, _stop)
    try:
        recipe = recipe_of_file(options) if options.recipe else recipe_from(options)
        check(recipe)
        if not (options.overwrite or options.leashed):  # a worker knows what its directories hold
            refuse_other_run(recipe, options.out)
        if options.processes is not None and options.processes < 1:
            raise EngineError("bad_usage", f"--processes is {options.processes} but must be at least 1")
        if options.activation_bytes is not None and options.activation_bytes < 0:
            raise EngineError("bad_usage", f"--activation-bytes is {options.activation_bytes} but must be at least 0")
        if not options.recipe:
            check_flags(options)
            check_texts(recipe)
    except EngineError as error:
        sys.stderr.write(f"python -m worker.engine: {error.detail}\n")
        return EXIT_USAGE
    except Stopped:
        return EXIT_STOPPED
    return _run(recipe, options, stream)


def _run(recipe: Recipe, options: argparse.Namespace, stream: TextIO) -> int:
    sink: JsonLines | ConsoleSink = JsonLines(stream) if options.json else ConsoleSink()
    emit = Emitter(sink)
    try:
        # Torch takes seconds to import: after the arguments are known to be good. Nothing of it is garbage, and looking
        # for some meanwhile would take a quarter longer.
        gc.disable()
        import transformers.modeling_layers  # noqa: F401  behind every model's code

        from worker.engine import device, pipeline
        from worker.engine.context import StageContext

        gc.freeze()
        gc.enable()
        try:
            resolved = device.resolve(recipe.device)
            context = StageContext(
                recipe=recipe,
                workspace=options.out.resolve(),
                cache=options.cache.resolve(),
                emit=emit,
                device=resolved,
                processes=options.processes or device.count(resolved),
                activation_bytes=options.activation_bytes,
            )
            report = pipeline.run_pipeline(context)
        except Exception as error:  # whatever happens, the reader gets a last event
            failure = pipeline.as_engine_error(error)
            if failure is not error:
                traceback.print_exc()
            emit.failed(failure.code, failure.detail, permanent=failure.permanent)
            if not options.json:
                sys.stderr.write(f"{failure.detail}\n")
            return EXIT_FAILED
    except (Stopped, KeyboardInterrupt) as stop:
        if isinstance(sink, ConsoleSink):
            sink.close()
            sys.stderr.write(f"{sink.stopped()}\n")
        return EXIT_STOPPED if isinstance(stop, Stopped) else 128 + signal.SIGINT
    if not options.json:
        print_summary(report)
        sys.stderr.write(f"checkpoint: {options.out / 'checkpoint'}\nreport: {options.out / 'report.json'}\n")
    return 0


def _stop(*_: object) -> None:
    raise Stopped


def _own_stdout() -> TextIO:
    """Keep the real stdout for events and point file descriptor 1 at stderr."""
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _leave(code: int) -> NoReturn:
    """End the process without the interpreter's finalization.

    Nothing is left to be done, and a library's thread that comes back from C++ while the interpreter is being taken
    apart ends in ``std::terminate``: a run that was stopped in order, or is done, would look like a crash.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the reader may be gone
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
