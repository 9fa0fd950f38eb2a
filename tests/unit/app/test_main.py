"""The API's process stays light; how quick its import is, `benchmarks.api_import` measures."""

import subprocess
import sys

SCRIPT = """
import sys
import app.main
loaded = {name.partition(".")[0] for name in sys.modules}
sent = {name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))}
print(sorted(loaded & {"torch", "transformers", "worker", "huggingface_hub"}), sorted(sent))
"""


def test_importing_the_application_loads_neither_science_nor_what_sends_traces() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[] []"
