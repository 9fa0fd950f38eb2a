"""The command's exit codes, as pipelines rely on them, and the sentences of what it cannot do."""

PASSED = 0
FAILED_OR_GATE_MISSED = 1
CANCELLED = 2
TIMED_OUT = 3
NOT_ALLOWED = 4
BAD_USAGE = 64
INTERRUPTED = 130


class UsageError(Exception):
    """What the user typed cannot be done; the message is one sentence that says what can."""


class NotAllowedError(Exception):
    """A key is missing, not valid, or may not do this; the message says which, and what to set."""


class BrokenOffError(Exception):
    """A transfer ended too early, again and again; the message says what is kept and how to go on."""


def sentence_of(error: OSError) -> str:
    """What the system refused, without its number: the file and the reason."""
    return f"{error.filename}: {error.strerror}." if error.filename and error.strerror else str(error)
