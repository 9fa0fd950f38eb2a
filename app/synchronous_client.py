"""Print the client for ordinary code: `python -m app.synchronous_client > app/client/streamline.py`, or `make client`.

The client for asyncio is its source: words are replaced, and there is no other difference between the two. This needs
the development tools; `app.client` needs none of it.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from unasync import Rule, unasync_files

SOURCE: Final = Path(__file__).parent / "client" / "asynchronous.py"
_HEAD: Final = "# Made from asynchronous.py by `make client`: change that file, not this one.\n"
_WORDS: Final = {
    "AsyncClient": "Client",
    "AsyncStreamline": "Streamline",
    "aclose": "close",
    "aiter_sse": "iter_sse",
    "aread": "read",
    "asyncio": "time",
}
"""Beside those of the language, such as `AsyncIterator`, which the library replaces by itself."""


def source() -> str:
    """The text of the client for ordinary code."""
    with TemporaryDirectory() as directory:
        made = Path(directory) / "streamline.py"
        unasync_files([str(SOURCE)], [Rule(str(SOURCE), str(made), _WORDS)])
        text = _HEAD + made.read_text(encoding="utf-8")
    # Names that now begin with another letter are sorted anew, and lines that got shorter are joined.
    return _ruff(_ruff(text, "check", "--fix", "--select", "I"), "format")


def _ruff(text: str, *command: str) -> str:
    name = SOURCE.with_name("streamline.py")  # says which settings hold
    run = [sys.executable, "-m", "ruff", *command, "--quiet", "--stdin-filename", str(name), "-"]
    return subprocess.run(run, input=text, capture_output=True, check=True, encoding="utf-8").stdout


if __name__ == "__main__":
    sys.stdout.write(source())
