"""From a job's specification to the engine's arguments: model and texts as local files, and the recipe beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from app.core import defaults
from app.datasets import repository as datasets
from app.datasets.tasks import TaskSource, find_task
from app.db.models import DatasetRow
from app.hub import catalog
from app.hub.catalog import Revision
from app.jobs.repository import Claim
from app.settings import Settings
from app.storage.blobs import BlobStore
from app.storage.register import hold_for_job


def prepare(
    claim: Claim, sessions: sessionmaker[Session], store: BlobStore, workspace: Path, settings: Settings
) -> list[str]:
    """Lay out the workspace and return the engine's arguments; doing it again changes nothing.

    Raises:
        HubError: the model's revision is no longer there.
        BlobNotFound, BlobCollected, BlobCorrupt: bytes of the model or of a data set are no longer there.
    """
    spec = claim.spec
    source, data = workspace / "source", workspace / "data"
    for directory in (source, data):
        directory.mkdir(parents=True, exist_ok=True)
    model = spec["model"]
    column = spec["calibration"]["column"]
    with sessions.begin() as session:
        dense = catalog.revision_of(session, model["repo"], model["revision"])
        rivals = {name: catalog.revision_of(session, *_rival(name)) for name in spec["benchmark"].get("rivals") or ()}
        named = dict.fromkeys([spec["calibration"]["dataset"], *spec["evaluation"]["perplexity"]])
        texts = {name: _dataset(session, name) for name in named if name != defaults.SELF_TEXT}
        pinned = spec["evaluation"].get("task_data") or {}  # absent in jobs that are older than it
        sources = [_source(session, settings.task_data, n, pinned.get(n)) for n in spec["evaluation"]["tasks"]]
        questions = [task.rows for task in sources if isinstance(task.rows, DatasetRow)]
        # From here on nothing of it is collected, even if the model's repository is removed.
        sizes = {file.sha256: file.size for revision in (dense, *rivals.values()) for file in revision.files}
        hold_for_job(session, claim.job_id, sizes | {row.sha256: row.size for row in [*texts.values(), *questions]})
    catalog.materialize(store, dense.files, source)
    calibration = _text(store, data, texts, spec["calibration"]["dataset"], column)
    evaluation = [_text(store, data, texts, name, column) for name in spec["evaluation"]["perplexity"]]
    recipe = _recipe(spec, settings) | {
        "judging": {
            "tasks": [_task(store, data, task) for task in sources],
            "limit": spec["evaluation"]["limit"],
            "over": spec["evaluation"].get("over", "option"),
            "stride": spec["evaluation"].get("stride"),
        },
        "model": {"path": str(source), "name": model["repo"], "revision": dense.commit},
        "calibration": calibration,
        "evaluation": evaluation,
    }
    recipe["benchmark"] |= {"rivals": [_lay_out_rival(store, workspace, rival) for rival in rivals.values()]}
    recipe_file = workspace / "job.json"
    staged = recipe_file.with_suffix(".staged")
    staged.write_text(json.dumps(recipe, indent=1, sort_keys=True))
    staged.replace(recipe_file)
    room = settings.activation_bytes
    return [
        *(() if room is None else ("--activation-bytes", str(room))),
        *("--recipe", str(recipe_file)),
        *("--out", str(workspace)),
        *("--cache", str(settings.cache_dir)),
        "--json",
        "--leashed",
    ]


def _recipe(spec: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The parts of the recipe that come out of the specification alone."""
    return {
        "target": {name: value for name, value in spec["target"].items() if value is not None},
        "scoring": spec["scoring"],
        "selection": spec["selection"],
        "replacement": spec["replacement"],
        "healing": spec.get("healing"),  # absent in jobs that are older than it
        "benchmark": _benchmark(spec["benchmark"]),
        "output": {"dtype": spec["output"]["dtype"], "format": spec["output"]["format"]},
        "seed": spec["seed"],
        "device": settings.device,
        "trust_remote_code": spec["model"]["repo"] in settings.trust_remote_code,
    }


def _benchmark(wanted: Mapping[str, Any]) -> dict[str, Any]:
    # A job of an older version has neither other lengths nor a backend.
    lengths = dict.fromkeys([wanted["prompt_tokens"], *(wanted.get("other_prompt_tokens") or ())])
    return {
        "batch_sizes": wanted["batch_sizes"],
        "prompt_tokens": list(lengths),
        "new_tokens": wanted["new_tokens"],
        "repeats": defaults.BENCHMARK_REPEATS,
        "backend": wanted.get("backend") or defaults.BENCHMARK_BACKEND,
    }


def _rival(name: str) -> tuple[str, str]:
    """Repository and commit of a rival of the benchmark, `repo@commit`."""
    repo, _, revision = name.partition("@")
    return repo, revision


def _lay_out_rival(store: BlobStore, workspace: Path, rival: Revision) -> dict[str, Any]:
    """A rival of the benchmark as a directory of read-only files."""
    directory = workspace / "rivals" / rival.repo
    directory.mkdir(parents=True, exist_ok=True)
    catalog.materialize(store, rival.files, directory)
    return {"path": str(directory), "name": rival.repo, "revision": rival.commit}


def _task(store: BlobStore, directory: Path, source: TaskSource) -> dict[str, Any]:
    """A task of the recipe, its rows as a file of the workspace."""
    file = directory / f"{source.name}.jsonl"
    if isinstance(source.rows, Path):
        file.unlink(missing_ok=True)
        file.symlink_to(source.rows.absolute())
    else:
        store.place(source.rows.sha256, file)
    return {"name": source.name, "definition": source.definition, "path": str(file)}


def _source(session: Session, mirror: Path | None, name: str, dataset: str | None) -> TaskSource:
    source = find_task(session, mirror, name, dataset)
    if source is None:
        raise LookupError(f"the data of task {name} are gone")
    return source


def _dataset(session: Session, dataset: str) -> DatasetRow:
    row = datasets.get(session, dataset)
    if row is None:
        raise LookupError(f"data set {dataset} is gone")
    return row


def _text(
    store: BlobStore, directory: Path, rows: Mapping[str, DatasetRow], dataset: str, column: str
) -> dict[str, Any]:
    """A text source of the recipe; the suffix of the file tells the engine how to read it."""
    if dataset == defaults.SELF_TEXT:
        return {"path": None, "column": column, "name": dataset}
    row = rows[dataset]
    file = directory / f"{row.id}.{'jsonl' if row.format == 'jsonl' else 'txt'}"
    store.place(row.sha256, file)
    return {"path": str(file), "column": column, "name": row.id}
