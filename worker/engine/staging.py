"""A directory that is there whole or not at all: written under another name, and renamed when all went well."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.engine.errors import EngineError


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Give a directory beside `out` to write to, and put it in the place of `out` when all went well.

    Raises EngineError `disk_full` where the disk fills up meanwhile; the staged files are gone after any failure.
    """
    directory = out.with_name(f".{out.name}.part")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        yield directory
        replaced = out.with_name(f".{out.name}.old")
        shutil.rmtree(replaced, ignore_errors=True)
        if out.exists():
            out.rename(replaced)
        directory.rename(out)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        written = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
        free = shutil.disk_usage(directory).free
        raise EngineError(
            "disk_full",
            f"the disk filled up after {written} bytes of the checkpoint, {free} bytes are free; free space and retry",
            permanent=True,
        ) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)
