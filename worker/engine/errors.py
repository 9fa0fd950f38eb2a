"""How the engine fails: one exception with a stable code and a sentence that says what to do next."""

from __future__ import annotations


class EngineError(Exception):
    """A failure that a person can act on.

    Attributes:
        code: stable, snake case: ``disk_full``, ``corrupt_model``, ``unsupported_family``, ``text_too_short``, ...
        detail: one or two sentences naming what was found and what would work.
        permanent: whether trying again unchanged must fail again; out of memory is not, since others may
            let go of theirs; a corrupt file is, and so is a full disk, where a person has to make room.
    """

    def __init__(self, code: str, detail: str, *, permanent: bool = True) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.permanent = permanent


class Stopped(BaseException):
    """SIGTERM arrived: unwind, throw the stage under way away, exit 143.

    A BaseException, so that no `except Exception` on the way swallows it.
    """
