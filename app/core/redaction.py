"""What must not leave a machine with a message: where things lie on it, keys, and the inside of a stack.

Clients see a job's error and its events, operators the log. Both shall know which file and what went wrong, and neither
needs to know where this machine keeps it.
"""

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Two parts at least: `/v1/jobs/ID` and the like are ours, and `and/or` begins with no slash.
_PATH = re.compile(r"(?<![\w.<>…/-])/(?!v1/|api/)(?:[^\s/'\"`:,;(){}\[\]<>|]+/)+([^\s/'\"`:,;(){}\[\]<>|]*)")
_SECRETS = (
    (re.compile(r"\b(hf_[A-Za-z0-9]{8})[A-Za-z0-9]{12,}"), r"\1…"),  # what names a key in our lists stays
    (re.compile(r"\bwhsec_[A-Za-z0-9+/=]{8,}"), "whsec_…"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), r"\1 …"),
    (re.compile(r"://[^/@\s]+@"), "://…@"),
    (re.compile(r"(/api/uploads/)[\w-]+\.[\w-]+"), r"\1…"),  # a ticket is as good as a key, for half a day
    (re.compile(r"(?i)\b((?:[\w-]*signature|[\w-]*secret[\w-]*|password)=)[^\s&,;'\"]+"), r"\1…"),
)
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_TRACE = "Traceback (most recent call last):"
_FRAME = re.compile(r"^\s+File \"[^\"]*\", line \d+", re.MULTILINE)
_BETWEEN = ("During handling of the above exception", "The above exception was the direct cause")

_CODE = Path(__file__).resolve().parents[2]


class Redaction:
    """Takes the places of one process or one job out of texts."""

    def __init__(self, **places: Path) -> None:
        """Directories by what they are called instead; the longest one that fits wins."""
        own = {"python": Path(sys.prefix), "tmp": Path(tempfile.gettempdir()), "code": _CODE, "home": Path.home()}
        # The same directory under another name, through a symbolic link, is the same place.
        named = {str(form): name for name, path in (own | places).items() for form in (path.absolute(), path.resolve())}
        named.pop("/", None)
        self._names = {path: f"<{name}>" for path, name in named.items()}
        longest_first = sorted(self._names, key=len, reverse=True)
        self._known = re.compile("|".join(rf"{re.escape(path)}(?![\w.-])" for path in longest_first))

    def of_places(self, text: str) -> str:
        """The text with each known directory under its name."""
        return self._known.sub(lambda found: self._names[found.group()], text)

    def __call__(self, text: str) -> str:
        """The text without known directories, other absolute paths (their last part stays), and keys.

        Also without what no database row may hold, whatever an engine printed: NUL and halves of surrogate pairs.
        """
        text = _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)
        return _PATH.sub(lambda found: f"…/{found[1]}", self.of_places(without_keys(text)))

    def of_values(self, value: Any) -> Any:
        """A JSON value with every text in it redacted."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {key: self.of_values(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.of_values(one) for one in value]
        return value


def without_keys(text: str) -> str:
    """The text with API keys, tokens, passwords and tickets made unusable."""
    for secret, instead in _SECRETS:
        text = secret.sub(instead, text)
    return text


def without_stack(text: str) -> str:
    """Output of a Python program without the frames of its stack traces: what was raised stays."""
    if not _FRAME.search(text):
        return text
    said = [
        line
        for line in text.splitlines()
        if line[:1].strip() and line != _TRACE and not line.startswith(_BETWEEN)  # frames are indented
    ]
    return "\n".join(said)
