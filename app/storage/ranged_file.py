"""Something far away that can be read in parts, as a file."""

import io
from collections.abc import Callable

_READ_BYTES = 8 << 20


class RangedFile(io.RawIOBase):
    """A seekable file of `size` bytes; each read is one call of `read(start, end)` for just its bytes."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read, self._size, self._at = read, size, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place without reading anything."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """The place in bytes."""
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer, or what of it there are bytes for."""
        end = min(self._at + len(buffer), self._size)
        content = self._read(self._at, end)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def readall(self) -> bytes:
        """All that follows; the inherited one asks for 8 KiB at a time."""
        content = b"".join(
            self._read(at, min(at + _READ_BYTES, self._size)) for at in range(self._at, self._size, _READ_BYTES)
        )
        self._at = max(self._at, self._size)
        return content
