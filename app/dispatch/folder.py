"""The embedded broker: kombu's filesystem transport with messages that appear whole.

kombu opens a message's file in the queue's folder and then writes it, so that another process may take it while it is
still empty. Here it is written beside the queue and moved in.
"""

import os
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps, loads

SCHEME = "folder"


class Channel(filesystem.Channel):  # type: ignore[misc]
    """A channel whose messages are moved into the queue in one step."""

    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:
        name = f"{time.time_ns():020d}_{uuid.uuid4()}.{queue}.msg"
        staged = Path(self.processed_folder) / name
        staged.write_bytes(dumps(payload).encode())
        staged.replace(Path(self.data_folder_out) / name)

    def _get(self, queue: str) -> Any:
        # kombu moves a message it takes through the system's temporary directory, perhaps on another disk.
        for name in sorted(os.listdir(self.data_folder_in)):  # noqa: PTH208 - names, not paths
            if name.endswith(f".{queue}.msg"):
                taken = Path(self.processed_folder) / f"{name}.{os.getpid()}"
                try:
                    (Path(self.data_folder_in) / name).replace(taken)
                except FileNotFoundError:
                    continue  # another worker was faster
                payload = taken.read_bytes()
                taken.unlink()
                return loads(payload.decode())
        raise Empty


class Transport(filesystem.Transport):  # type: ignore[misc]
    """The transport behind `folder://`."""

    Channel = Channel


TRANSPORT_ALIASES[SCHEME] = f"{__name__}:{Transport.__name__}"
