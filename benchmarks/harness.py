"""The same questions to lm-evaluation-harness' own command line and to the service, compared answer by answer.

    python -m benchmarks.harness --data DIR [--limit N] [--json]

DIR has `blimp/*.jsonl`, `story_cloze.jsonl` and `commonsenseqa.jsonl`. A job compresses the bundled model and puts the
questions to it before and after; then `lm_eval --model hf` does so with the same two checkpoints, by the harness' own
definitions of BLiMP and `commonsense_qa` (our definition of story cloze, which it has not), their rows read from files
instead of the Hub. Exits 1 where a prompt, an answer or a task's accuracy differs, or a log-likelihood by more than
1e-3 nats: both compute in float32, but in other batches.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import httpx
import lm_eval.tasks
import yaml

import app.bundled
from app.cli.download import download_repo
from app.cli.hub_address import HubAddress
from app.client import Streamline
from benchmarks.embedded import embedded_service
from worker.engine.evaluation.definitions import DEFINITIONS

TOLERANCE: Final = 1e-3
VARIANTS: Final = ("dense", "pruned")
_PREFIX = "own_"  # the command line has the harness' tasks under their names already
_HARNESS = Path(lm_eval.tasks.__file__).parent

Record = dict[str, Any]
Records = dict[str, list[Record]]


def main() -> int:
    """Compare; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.harness", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="tasks' files")
    parser.add_argument("--limit", type=int, default=1_000_000, help="questions per task; default all")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        mirror = _mirror(arguments.data, place / "mirror")
        tasks = {f"blimp_{path.stem}": path for path in sorted((mirror / "blimp").iterdir())}
        tasks |= {name: mirror / f"{name}.jsonl" for name in ("story_cloze", "commonsense_qa")}
        ours = _from_the_service(mirror, list(tasks), arguments.limit, place)
        definitions = _definitions(tasks, place / "definitions")
        models = {"dense": Path(app.bundled.__path__[0]) / "stories-24l", "pruned": place / "pruned"}
        theirs = {
            variant: _from_the_command_line(models[variant], definitions, list(tasks), mirror, arguments.limit, place)
            for variant in VARIANTS
        }
        found = [
            {"variant": variant, "task": name, **_compared(ours[variant][name], theirs[variant][name])}
            for variant in VARIANTS
            for name in tasks
        ]
    print(json.dumps(found, indent=2)) if arguments.json else _show(found)
    return 0 if all(row["same"] for row in found) else 1


def _mirror(data: Path, mirror: Path) -> Path:
    """Lay out the files as both sides read them: CommonsenseQA in the form that its set has on the Hub."""
    mirror.mkdir()
    shutil.copytree(data / "blimp", mirror / "blimp")
    shutil.copy(data / "story_cloze.jsonl", mirror)
    rows = [json.loads(line) for line in (data / "commonsenseqa.jsonl").read_text(encoding="utf-8").splitlines()]
    with (mirror / "commonsense_qa.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            options = row["question"]["choices"]
            choices = {name: [option[name] for option in options] for name in ("label", "text")}
            row |= {"question": row["question"]["stem"], "choices": choices}
            file.write(json.dumps(row) + "\n")
    return mirror


def _from_the_service(mirror: Path, tasks: list[str], limit: int, place: Path) -> dict[str, Records]:
    """Return variant -> task -> records of a job; its checkpoint is left in `place / "pruned"`."""
    with embedded_service(place / "service", mirror) as url, Streamline(url) as service:
        job = service.submit(
            {
                "model": {"repo": "demo/stories-24l"},
                "target": {"sparsity": 0.25},
                "replacement": {"kind": "layer", "tokens": 20_000},
                "evaluation": {"tasks": tasks, "limit": limit},
                "benchmark": {"prompt_tokens": 8, "new_tokens": 2},
                "output": {"repo": "compared/pruned"},
            }
        )
        job = service.wait(job["id"])
        if job["state"] != "succeeded":
            sys.exit(f"{job['id']} {job['state']}: {job['error']}")
        hub = HubAddress(service.connection, "STREAMLINE_API_KEY")
        download_repo(hub, f"compared/pruned@{job['result']['revision']}", place / "pruned")
        files = f"{url}/v1/jobs/{job['id']}/files/samples"
        return {
            variant: {
                name: _records(httpx.get(f"{files}/{name}.{variant}.jsonl").raise_for_status().text) for name in tasks
            }
            for variant in VARIANTS
        }


def _definitions(tasks: dict[str, Path], directory: Path) -> Path:
    """Write a definition for each task that is the harness' own but for where the rows come from."""
    directory.mkdir()
    own = {"story_cloze": DEFINITIONS / "story_cloze.yaml", "commonsense_qa": _HARNESS / "commonsense_qa/default.yaml"}
    for name, path in tasks.items():
        origin = own.get(name) or _HARNESS / f"blimp/{name.removeprefix('blimp_')}.yaml"
        definition: dict[str, Any] = {"include": str(origin), "task": _PREFIX + name}
        if name != "story_cloze":
            files = {"train": str(path), "validation": str(path)}
            definition |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(definition), encoding="utf-8")
    return directory


def _from_the_command_line(
    model: Path, definitions: Path, tasks: list[str], mirror: Path, limit: int, place: Path
) -> Records:
    """Return task -> records of `lm_eval`'s own model and loop."""
    out = Path(tempfile.mkdtemp(dir=place))
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(place / "datasets"), "STREAMLINE_TASK_DATA": str(mirror)}
    options = {
        "model": "hf", "model_args": f"pretrained={model},dtype=float32", "device": "cpu", "batch_size": "64",
        "include_path": str(definitions), "tasks": ",".join(_PREFIX + name for name in tasks), "limit": str(limit),
        "output_path": str(out),
    }  # fmt: skip
    command = [sys.executable, "-m", "lm_eval", "run", *(f"--{name}={value}" for name, value in options.items())]
    subprocess.run(
        [*command, "--log_samples"],
        env=os.environ | offline,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return {name: _records(next(out.rglob(f"samples_{_PREFIX}{name}_2*.jsonl")).read_text("utf-8")) for name in tasks}


def _records(text: str) -> list[Record]:
    return sorted((json.loads(line) for line in text.splitlines()), key=lambda record: int(record["doc_id"]))


def _compared(ours: list[Record], theirs: list[Record]) -> dict[str, Any]:
    """Return how many questions and answers are the same, and the largest difference of a log-likelihood."""
    pairs = list(zip(ours, theirs, strict=True))
    prompts = sum(a["arguments"] == b["arguments"] and str(a["target"]) == str(b["target"]) for a, b in pairs)
    answers = sum(a["acc"] == b["acc"] and _choice(a) == _choice(b) for a, b in pairs)
    apart = max((abs(x - y) for a, b in pairs for x, y in zip(_sums(a), _sums(b), strict=True)), default=math.inf)
    return {
        "questions": len(pairs), "same_prompts": prompts, "same_answers": answers, "apart_nats": apart,
        "accuracy": [sum(record["acc"] for record in records) / len(records) for records in (ours, theirs)],
        "same": prompts == answers == len(pairs) and apart <= TOLERANCE,
    }  # fmt: skip


def _sums(record: Record) -> list[float]:
    return [float(found[0][0]) for found in record["resps"]]


def _choice(record: Record) -> int:
    sums = _sums(record)
    return sums.index(max(sums))


def _show(found: list[dict[str, Any]]) -> None:
    for row in found:
        ours, theirs = row["accuracy"]
        print(
            f"{row['variant']:<6} {row['task']:<46} {row['questions']:>4} questions, same prompts "
            f"{row['same_prompts']}, same answers {row['same_answers']}, at most {row['apart_nats']:.1e} nats apart; "
            f"accuracy {ours:.4f} / {theirs:.4f}{'' if row['same'] else '  DIFFERENT'}"
        )
    questions = sum(row["questions"] for row in found)
    print(f"{questions} questions; {sum(row['same'] for row in found)} of {len(found)} tasks the same")


if __name__ == "__main__":
    sys.exit(main())
