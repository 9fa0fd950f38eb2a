"""Ports for servers that bind them later, in processes of their own.

What a kernel gives for port 0, or to a client's connection, comes out of its ephemeral range (from 32768 on with
Linux): a port found that way and let go may be somebody else's a second later. These lie below, each is given out once,
and each of pytest's processes has some of its own.
"""

import itertools
import os
import socket
from collections.abc import Iterator

_FIRST, _EACH, _PARTS = 20_000, 1_000, 12


def _ours() -> Iterator[int]:
    part = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PARTS
    # Elsewhere with every run, for whoever runs two at a time on one machine.
    start = os.getpid() * 37 % _EACH
    yield from itertools.cycle(_FIRST + part * _EACH + (start + n) % _EACH for n in range(_EACH))


_ports = _ours()


def unused_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, and which nobody is given."""
    for port in itertools.islice(_ports, _EACH):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("every port is taken")
