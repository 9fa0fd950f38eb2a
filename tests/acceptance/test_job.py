"""The main way: submit over HTTP, compress, prove, publish, pull with the stock client."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from huggingface_hub import ModelCard

from tests.acceptance.backends import EMBEDDED, SERVERS, backend
from tests.service_process import BUNDLED_JOB, ServiceProcesses, told_of

# What serving runs: transformers and huggingface_hub, isolated (-I) from this checkout.
PULL = """
import json, os, sys
try:
    import app
    raise SystemExit("this project is importable here, the test would prove nothing")
except ModuleNotFoundError:
    pass
import torch
from huggingface_hub import ModelCard, snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer
from safetensors.torch import load_file
repo, trust, probe = sys.argv[1], sys.argv[2] == "trust", load_file(sys.argv[3])
ModelCard.load(repo).validate()
model = AutoModelForCausalLM.from_pretrained(repo, dtype=torch.float32, trust_remote_code=trust).eval()
tokenizer = AutoTokenizer.from_pretrained(repo)
ids = tokenizer("<|endoftext|>Once upon a time, there was a little girl", return_tensors="pt").input_ids
with torch.no_grad():
    difference = (model(probe["input_ids"]).logits[0] - probe["logits"]).abs().max().item()
written = model.generate(ids, max_new_tokens=8, do_sample=False)
files = sorted(os.listdir(snapshot_download(repo)))
print(json.dumps({"difference": difference, "new": written.shape[1] - ids.shape[1],
                  "layers": model.config.num_hidden_layers, "files": files}))
"""


def pull(service: ServiceProcesses, job: dict[str, Any], home: Path, *, trust: bool = False) -> dict[str, Any]:
    """Load a job's checkpoint with the stock client, in an empty HF_HOME, where this project is not installed.

    `difference` is the largest one between its logits and those that the engine's model in memory gave.
    """
    home.mkdir()
    repo, probe = job["result"]["repo"], home / "probe.safetensors"
    probe.write_bytes(httpx.get(f"{service.url}/v1/jobs/{job['id']}/files/probe.safetensors").content)
    environment = {"PATH": "/usr/bin:/bin", "HF_ENDPOINT": service.url, "HF_HOME": str(home), "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-I", "-c", _without_this_project(PULL), repo, "trust" if trust else "stock", str(probe)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _without_this_project(script: str) -> str:
    """An editable installation puts the checkout on the path; take it off again."""
    checkout = str(Path(__file__).resolve().parents[2])
    return (
        "import sys\n"
        f"sys.path = [p for p in sys.path if not p.startswith({checkout!r}) or 'site-packages' in p]\n"
        "sys.meta_path = [f for f in sys.meta_path if '__editable__' not in getattr(f, '__module__', '')]\n"
        "sys.path_hooks = [h for h in sys.path_hooks if '__editable__' not in getattr(h, '__module__', '')]\n"
        "sys.path = [p for p in sys.path if '__editable__' not in p]\n" + script
    )


def test_a_job_is_compressed_proved_published_and_pulled(shared_service: ServiceProcesses, tmp_path: Path) -> None:
    with shared_service.client() as client:
        job = client.submit(
            BUNDLED_JOB | {"gates": {"max_perplexity_ratio": 100.0}, "output": {"repo": "team/main-way"}}
        )
        assert job["state"] == "queued"
        job = client.wait(job["id"], timeout=600)
        assert (job["state"], job["verdict"], job["error"]) == ("succeeded", "pass", None)
        assert job["progress"] == 1.0
        told = told_of(shared_service.url, job["id"])
        assert '"path":"<workspace>/source"' in told.replace(" ", "")
        assert str(shared_service.data_dir) not in told
        metrics = job["result"]["metrics"]
        for name in ("dense", "cut", "pruned"):
            assert all(value > 1 for value in metrics["perplexity"][name].values())
        for name in ("decode_tokens_per_second", "speedup", "time_to_first_token_s", "flops_per_token"):
            assert name in metrics
        for name in ("peak_memory_bytes", "checkpoint_bytes", "stage_seconds", "sparsity", "parameters"):
            assert name in metrics
        stages = [event["data"]["stage"] for event in client.events(job["id"]) if event["event"] == "stage_finished"]
        assert stages == ["fetch", "score", "select", "train", "assemble", "verify", "evaluate", "benchmark"]
        report = client.report(job["id"])
        assert report["removed_layers"] == job["result"]["removed_layers"]
        jsonschema.validate(report, httpx.get(f"{shared_service.url}/v1/schemas/report-1.json").json())
    repo = job["result"]["repo"]
    pulled = pull(shared_service, job, tmp_path / "home")
    assert pulled["difference"] < 1e-4
    assert pulled["layers"] == 18
    card = ModelCard(httpx.get(f"{shared_service.url}/{repo}/resolve/main/README.md").text)
    assert (card.data.base_model, card.data.library_name) == ("demo/stories-24l", "transformers")
    (measured,) = [result for result in card.data.eval_results if result.metric_type == "perplexity"]
    assert measured.metric_value == pytest.approx(next(iter(metrics["perplexity"]["pruned"].values())), rel=1e-5)
    assert pulled["new"] >= 1
    refs = httpx.get(f"{shared_service.url}/api/models/{repo}/refs").json()
    assert {branch["name"]: branch["targetCommit"] for branch in refs["branches"]} == {
        "main": job["result"]["revision"]
    }


@backend(EMBEDDED, "shared_service")
@pytest.mark.parametrize(("kind", "fmt"), [("ffn", "auto"), ("swiglu", "native")])
def test_replacements_without_attention_load_in_the_stock_client(
    shared_service: ServiceProcesses, tmp_path: Path, kind: str, fmt: str
) -> None:
    with shared_service.client() as client:
        request = BUNDLED_JOB | {
            "replacement": {"kind": kind, "tokens": 2048},
            "output": {"repo": f"team/{kind}-{fmt}", "format": fmt},
        }
        job = client.wait(client.submit(request)["id"], timeout=600)
        assert job["state"] == "succeeded", job["error"]
    pulled = pull(shared_service, job, tmp_path / "home", trust=fmt == "auto")
    assert pulled["difference"] < 1e-4
    assert ("modeling_streamline.py" in pulled["files"]) == (fmt == "auto")


@backend(SERVERS, "shared_service")
def test_a_missed_gate_fails_the_verdict_and_moves_no_main(shared_service: ServiceProcesses, tmp_path: Path) -> None:
    sky = {"context": "The sun is in the", "choices": ["sky.", "box of the dog and"], "label": 0}
    bed = {"context": "She went to", "choices": ["under very", "bed."], "label": "B"}
    (questions := tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (sky, bed)))
    with shared_service.client() as client:
        own = client.upload_dataset(questions)["id"]
        request = BUNDLED_JOB | {
            "replacement": {"kind": "none", "tokens": 2048},
            "evaluation": {"tasks": [own]},
            "gates": {"max_perplexity_ratio": 0.5, "min_stability": 0.01, "tasks": {own: {"max_flip_rate": 1}}},
            "output": {"repo": "team/missed"},
        }
        job = client.wait(client.submit(request)["id"], timeout=600)
    assert (job["state"], job["verdict"], job["error"]) == ("succeeded", "fail", None)
    assert [gate["name"] for gate in job["gates"]] == ["perplexity_ratio", "stability", f"flip_rate/{own}"]
    assert not job["gates"][0]["passed"]
    low, high = job["gates"][1]["interval"]
    assert low <= job["gates"][1]["value"] <= high
    records = httpx.get(f"{shared_service.url}/v1/jobs/{job['id']}/files/samples/{own}.pruned.jsonl").text
    assert [json.loads(line)["acc"] for line in records.splitlines()] == [1.0, 1.0]
    repo, revision = job["result"]["repo"], job["result"]["revision"]
    refs = httpx.get(f"{shared_service.url}/api/models/{repo}/refs").json()
    assert refs["branches"] == []
    answer = httpx.get(f"{shared_service.url}/{repo}/resolve/{revision}/config.json")
    assert answer.json()["num_hidden_layers"] == 18, "still there by revision"
