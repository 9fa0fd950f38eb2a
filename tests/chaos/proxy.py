"""A TCP proxy that a test breaks at will: the network between two parts of the service."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Proxy:
    """Forwards every connection to a port of this machine, until it is cut, silenced or slowed down."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.cuts = 0
        """Connections that were torn down."""
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{target_port}", daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = True
        self._flowing: asyncio.Event
        self._delay = 0.0
        self._trap: tuple[bytes, bytes, bool] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def cut(self) -> None:
        """Tear every connection down and take no new one."""
        self._call(self._cut)

    def silence(self) -> None:
        """Keep every connection, and let nothing through: neither end can tell it from a slow one."""
        self._call(self._flowing.clear)

    def slow_down(self, seconds: float) -> None:
        """Hold each piece back for so long."""
        self._delay = seconds

    def cut_in_transaction(self, holding: bytes, *, before_commit: bool) -> None:
        """Tear the next connection down that sends `holding` and then COMMIT, before or just after COMMIT passes.

        After it, the server has committed and the client never hears of it.
        """
        self._trap = (holding, b"COMMIT", before_commit)

    @property
    def trap_is_set(self) -> bool:
        """Whether no connection has run into `cut_in_transaction` yet."""
        return self._trap is not None

    def mend(self) -> None:
        """Forward as at the start."""
        self._delay = 0.0

        def mend() -> None:
            self._open = True
            self._flowing.set()

        self._call(mend)

    def _call(self, change: Callable[[], object]) -> None:
        done = threading.Event()

        def run() -> None:
            change()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(10)

    def _cut(self) -> None:
        self._open = False
        self.cuts += len(self._writers) // 2
        for writer in self._writers:
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._flowing = asyncio.Event()
        self._flowing.set()
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            pumps = {
                asyncio.create_task(self._pump(reader, back, watched=True)),
                asyncio.create_task(self._pump(there, writer)),
            }
            _, others = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in others:
                pump.cancel()
        finally:
            self._writers -= {writer, back}
            for end in (writer, back):
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, watched: bool = False) -> None:
        caught = False
        with contextlib.suppress(OSError):
            while piece := await reader.read(1 << 16):
                await self._flowing.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                if watched and self._trap is not None:
                    holding, commit, before = self._trap
                    caught = (caught or holding in piece) and b"ROLLBACK" not in piece
                    if caught and commit in piece:
                        self._trap, self.cuts = None, self.cuts + 1
                        if not before:
                            writer.write(piece)
                            await writer.drain()
                            await asyncio.sleep(0.2)  # aborting would throw away what the kernel has not sent yet
                        return
                writer.write(piece)
                await writer.drain()
            writer.write_eof()
