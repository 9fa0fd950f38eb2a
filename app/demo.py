"""`make demo`: the whole way of a job on this machine, as a newcomer would go it.

Starts the service embedded, submits the bundled model over HTTP, watches it, pulls the result from the hub with the
stock Hugging Face client in a process of its own, and prints dense against cut and pruned.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from app.cli import exits
from app.cli.serve import free_port
from app.cli.waiting import Outcome, follow
from app.client import Streamline

MODEL = "demo/stories-24l"
SPARSITY = 0.25
DATA_DIR = Path("streamline-data")
OUTPUT_DIR = Path("demo-output")

_START_SECONDS = 90

# What serving would run: nothing but the stock client.
_PULL = """
import sys
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer

repo, revision, directory = sys.argv[1:]
path = snapshot_download(repo, revision=revision, local_dir=directory)
model = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
tokenizer = AutoTokenizer.from_pretrained(path)
prompt = tokenizer("<|endoftext|>Once upon a time, there was a little dragon", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=40, do_sample=False)[0], skip_special_tokens=True))
"""


def main() -> int:
    """Run the demo; 0 when everything worked."""
    console = Console(highlight=False)
    began = time.monotonic()
    with _service(console) as url, Streamline(url) as service:
        console.print(f"Service up at {url} after {time.monotonic() - began:.0f} s. Submitting {MODEL} ...")
        request = {
            "model": {"repo": MODEL},
            "target": {"sparsity": SPARSITY},
            "gates": {"max_perplexity_ratio": 1.3},
            "labels": {"from": "make-demo"},
        }
        job = service.submit(request)
        console.print(f"POST {url}/v1/jobs -> 202, job {job['id']}")
        status = follow(service, job, timeout=None, outcome=Outcome())
        job = service.job(job["id"])
        if job["state"] != "succeeded":
            return status or exits.FAILED_OR_GATE_MISSED
        report = service.report(job["id"])
        written = _pull(url, job["result"])
        _show(console, job, report, written)
        console.print(f"Done in {time.monotonic() - began:.0f} s; the service stops now. Start it again with: make up")
    return status


@contextlib.contextmanager
def _service(console: Console) -> Iterator[str]:
    port = free_port("127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    console.print("Starting the service (API, worker, SQLite, embedded broker) ...")
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "up", "--port", str(port), "--data", str(DATA_DIR)],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with Streamline(url) as service:
            deadline = time.monotonic() + _START_SECONDS
            while not service.ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"The service did not start; its logs are in {DATA_DIR / 'logs'}.")
                time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _pull(url: str, result: dict[str, Any]) -> str:
    """Download the checkpoint into an empty cache and generate from it, with the stock client alone."""
    directory = OUTPUT_DIR / "checkpoint"
    environment = os.environ | {
        "HF_ENDPOINT": url,
        "HF_HOME": str((OUTPUT_DIR / "hf-home").absolute()),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    arguments = [result["repo"], result["revision"], str(directory)]
    done = subprocess.run(
        [sys.executable, "-c", _PULL, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"The stock client could not use the checkpoint:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def _show(console: Console, job: dict[str, Any], report: dict[str, Any], written: str) -> None:
    for sample in report["samples"][:1]:
        for side in ("dense", "cut", "pruned"):
            if side in sample:
                text = re.sub(
                    r"\n{3,}", "\n[...]\n", sample["prompt"] + sample[side]
                )  # a broken model likes blank lines
                console.print(Panel(Text(text), title=side, title_align="left"))
    console.print(Panel(Text(written), title="pruned, pulled from the hub by the stock client", title_align="left"))
    result = job["result"]
    console.print(
        f"\ncheckpoint   {OUTPUT_DIR / 'checkpoint'}  ({result['repo']} at {result['revision']})\n"
        f"data, logs   {DATA_DIR}/\n"
        "To look around, run `make up` and open\n"
        f"  http://127.0.0.1:8000/jobs/{job['id']}           this job\n"
        f"  http://127.0.0.1:8000/v1/jobs/{job['id']}/report  its report, with plots\n"
        "  http://127.0.0.1:8000/docs                                        the API\n"
        f"and serve it with: HF_ENDPOINT=http://127.0.0.1:8000 vllm serve {result['repo']}",
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
