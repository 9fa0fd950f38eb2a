"""The typed Python client of the HTTP API: what the `streamline` command uses, and what a notebook imports.

>>> from app.client import Streamline
>>> with Streamline() as service:
...     job = service.submit({"model": {"repo": "demo/stories-24l"}, "target": {"sparsity": 0.25}})
...     job = service.wait(job["id"])
...     print(job["verdict"], job["result"]["metrics"]["speedup"])

`AsyncStreamline` is the same for asyncio. Both send a request again where that does no harm: after a dropped
connection, and when the service is busy or restarts, after as long as its `Retry-After` asks for.
"""

from app.client.asynchronous import AsyncStreamline
from app.client.calls import DEFAULT_URL, FINAL_STATES, Event, Job
from app.client.failures import ProblemError, UnreachableError, WaitTimeoutError
from app.client.streamline import Streamline

__all__ = [
    "DEFAULT_URL",
    "FINAL_STATES",
    "AsyncStreamline",
    "Event",
    "Job",
    "ProblemError",
    "Streamline",
    "UnreachableError",
    "WaitTimeoutError",
]
