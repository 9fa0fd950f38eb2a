"""Pickles that make a directory when anything unpickles them, written by hand: nothing here imports the module."""

import io
import zipfile
from pathlib import Path


class Canary:
    """One sign of an unpickling, and files that would give it."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign
        self.pickle = f"cos\nmkdir\n(V{sign}\ntR.".encode()
        """Protocol 0: `os.mkdir(sign)`."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("archive/data.pkl", self.pickle)
            file.writestr("archive/version", "3\n")
        self.torch_file = archive.getvalue()
        """As `torch.save` packs it."""

    @property
    def sang(self) -> bool:
        """Whether somebody unpickled one of the files."""
        return self.sign.exists()
