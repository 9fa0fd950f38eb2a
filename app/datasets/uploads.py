"""A multipart upload (RFC 7578) written straight to disk, a buffer at a time.

The framework's own form parser spools to the system's temporary directory first, which may be small or in memory, and
tells nothing about the disk that the file will end on.
"""

from collections.abc import AsyncIterator
from typing import BinaryIO, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from app.errors.requests import (
    BodyTooLarge,
    MalformedBody,
    MissingField,
    OutOfRange,
    UnknownField,
    UnsupportedMediaType,
)

_BUFFER: Final = 1 << 20
_MAX_NAME: Final = 200
_MAX_FIELD_BYTES: Final = 4096
FIELDS: Final = ("file", "name")


class UploadForm:
    """The form of POST /v1/datasets: `file`, whose bytes go to a sink, and `name`, a short text."""

    def __init__(self, content_type: str, sink: BinaryIO, *, max_bytes: int) -> None:
        """Begin to read a form.

        Args:
            content_type: the request's header, with the boundary.
            sink: where the file's bytes go.
            max_bytes: longest file that is taken.

        Raises:
            UnsupportedMediaType: the body is no multipart form.
        """
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise UnsupportedMediaType("Send a multipart/form-data body with the field `file` (and `name`).")
        self._sink = sink
        self._max_bytes = max_bytes
        self._size = 0
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._part = ""
        self._name = bytearray()
        self._seen: list[str] = []
        self._complete = False
        self.filename = ""
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._begin_part,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_content,
                "on_part_data": self._content,
                "on_end": self._end,
            },
        )

    async def read(self, body: AsyncIterator[bytes]) -> str:
        """Read the whole form; returns the data set's name.

        Raises:
            MalformedBody, MissingField, UnknownField, OutOfRange, BodyTooLarge: as their docstrings say.
        """
        buffer = bytearray()
        async for chunk in body:
            buffer += chunk
            if len(buffer) >= _BUFFER:
                # Writing to disk may block; the event loop has other clients.
                await run_in_threadpool(self._feed, bytes(buffer))
                buffer.clear()
        await run_in_threadpool(self._feed, bytes(buffer))
        if not self._complete:
            raise MalformedBody("The form ends before its last boundary; send it again as a whole.")
        if "file" not in self._seen:
            raise MissingField("file is missing; send the data set in the form's field `file`.", pointer="/file")
        return self._checked_name()

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise MalformedBody(f"The form cannot be read: {error}.") from None

    def _checked_name(self) -> str:
        try:
            name = self._name.decode() if "name" in self._seen else self.filename
        except UnicodeDecodeError:
            raise MalformedBody("The field `name` is not UTF-8.", pointer="/name") from None
        if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
            raise OutOfRange(
                f"name must be 1 to {_MAX_NAME} printable characters; give one in the field `name`.", pointer="/name"
            )
        return name

    def _begin_part(self) -> None:
        self._disposition = b""

    def _end_header(self) -> None:
        field, value = self._header
        if bytes(field).lower() == b"content-disposition":
            self._disposition = bytes(value)
        field.clear()
        value.clear()

    def _begin_content(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._part = options.get(b"name", b"").decode("utf-8", "replace")
        if self._part not in FIELDS:
            raise UnknownField(
                f"{self._part[:100]!r} is not a field of this form. Known here: {', '.join(FIELDS)}.",
                pointer=f"/{self._part[:100]}",
            )
        if self._part in self._seen:
            raise MalformedBody(f"The field `{self._part}` is there twice; send it once.", pointer=f"/{self._part}")
        self._seen.append(self._part)
        if self._part == "file":
            path = options.get(b"filename", b"").decode("utf-8", "replace")
            self.filename = path.replace("\\", "/").rsplit("/", 1)[-1]

    def _content(self, data: bytes, start: int, end: int) -> None:
        if self._part == "name":
            self._name += data[start:end]
            if len(self._name) > _MAX_FIELD_BYTES:
                raise OutOfRange(f"name must be 1 to {_MAX_NAME} printable characters.", pointer="/name")
            return
        self._size += end - start
        if self._size > self._max_bytes:
            raise BodyTooLarge(
                f"The file is longer than the {self._max_bytes:,} bytes that this service takes; send less text, or "
                "ask the operator to raise STREAMLINE_MAX_DATASET_BYTES.",
                pointer="/file",
            )
        self._sink.write(data[start:end])

    def _end(self) -> None:
        self._complete = True
