"""Clients of other versions, each in a small environment of its own beside the project's, made once."""

import fcntl
import subprocess
import sys
import venv
from pathlib import Path

VERSIONS = ("0.36.2", "1.28.0", "2.4.0")
HF_XET = "1.8.0"
_VENVS = Path(sys.prefix) / "clients"


def client_python(version: str) -> Path:
    """The interpreter with huggingface_hub of this version and hf_xet; the first call installs them."""
    directory = _VENVS / version
    python = directory / "bin" / "python"
    done = directory / ".installed"
    _VENVS.mkdir(exist_ok=True)
    with (_VENVS / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # pytest's processes take turns
        if not done.exists():
            venv.create(directory, with_pip=True, clear=True)
            packages = [f"huggingface_hub=={version}", f"hf_xet=={HF_XET}"]
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            subprocess.run(install, check=True)
            done.touch()
    return python
