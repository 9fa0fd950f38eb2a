"""The `streamline` command without its start: forked from a process that has imported it already.

A page has a dozen commands, and importing takes longer than most of them do. The code that runs is the command's own,
with the caller's arguments, directory, environment, input and output.

    python prefork.py serve SOCKET          (until it is killed)
    python -I -S prefork.py SOCKET [ARGUMENT ...]
"""

import importlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

_MOST_BYTES = 1 << 20
_IMPORTED = (
    *(
        "app.cli.application",
        "app.cli.comparison",
        "app.cli.jobs",
        "app.cli.storage",
        "app.cli.verify",
        "app.cli.waiting",
        "app.client",
    ),
    *("app.db.migrate", "app.db.session", "app.jobs.spec.request", "app.storage.opening", "sqlalchemy.dialects.sqlite"),
)


def serve(path: str) -> None:
    """Fork for each caller; whatever a command needs of modules is there."""
    for name in _IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a child: its caller is told by the child itself
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{path}.new")
        server.listen(16)
        Path(f"{path}.new").rename(path)  # whoever sees it can call
        while True:
            caller, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _answer(caller)
            caller.close()


def _answer(caller: socket.socket) -> None:
    from app.cli.application import run

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    content, files, _, _ = socket.recv_fds(caller, _MOST_BYTES, 3)
    asked = json.loads(content)
    for target, file in enumerate(files):
        os.dup2(file, target)
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    code = 70  # EX_SOFTWARE: a traceback is on standard error
    try:
        code = run(asked["arguments"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        caller.sendall(bytes([code]))
        os._exit(code)


def call(path: str, arguments: list[str]) -> int:
    """Run the command there as if it were run here; its exit code."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        asked = {"arguments": arguments, "directory": str(Path.cwd()), "environment": dict(os.environ)}
        socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
        answer = server.recv(1)
    return answer[0] if answer else 70


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(call(sys.argv[1], sys.argv[2:]))
