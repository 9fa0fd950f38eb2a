"""Ten thousand forged headers and configs: each is read, or refused by name, and takes no memory."""

import json
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.core.architectures import ArchitectureError
from app.core.safetensors_file import CorruptSafetensors, read_header
from app.errors.requests import InvalidRequest
from app.jobs.facts import inline_facts
from app.jobs.spec.request import PlanRequest
from tests.unit.app.core.configs import LLAMA_2_7B, OPT_125M, OTHERS, PYTHIA_160M, QWEN2_0_5B

HEADERS, CONFIGS = 8000, 4000
MOST_BYTES = 32 << 20
NUMBERS = [
    0,
    1,
    -1,
    2,
    7,
    2**31,
    2**53,
    2**60,
    2**63,
    2**64,
    10**300,
    -(2**60),
    1.5,
    float("inf"),
    True,
    "8",
    None,
    [],
    {},
]
DTYPES = ["F32", "BF16", "F4", "I64", "f32", "", "F128", 7, None]


def header_file(random: random.Random) -> bytes:
    """A safetensors file that is nearly right: ranges that overlap, sizes that overflow, lengths that lie."""
    data = random.randrange(0, 200)
    tensors: dict[str, Any] = {}
    at = 0
    for number in range(random.randrange(0, 4)):
        elements = random.randrange(0, 8)
        shape: Any = [elements]
        end = at + 4 * elements
        entry: dict[str, Any] = {"dtype": "F32", "shape": shape, "data_offsets": [at, end]}
        match random.randrange(8):
            case 0:
                entry["shape"] = [random.choice(NUMBERS) for _ in range(random.randrange(0, 5))]
            case 1:
                entry["data_offsets"] = [random.choice(NUMBERS), random.choice(NUMBERS)]
            case 2:
                entry["dtype"] = random.choice(DTYPES)
            case 3:
                del entry[random.choice(list(entry))]
            case 4:
                entry["data_offsets"] = [max(0, at - 4), end]
        tensors[random.choice(["w", "\0", "__metadata__", "../x", "\ud800", str(number)])] = entry
        at = end
    header = json.dumps(tensors).encode()
    match random.randrange(8):
        case 0:
            header = b'{"a":' * random.choice([10, 1000, 100_000]) + header
        case 1:
            header = bytes(random.randrange(256) for _ in range(random.randrange(40)))
        case 2 if header:
            position = random.randrange(len(header))
            header = header[:position] + bytes([random.randrange(256)]) + header[position + 1 :]
        case 3:
            header += b" " * random.randrange(20)
    length = len(header) if random.random() < 0.8 else random.choice([0, 1, 2**31, 2**60, 2**64 - 1, len(header) + 5])
    return struct.pack("<Q", length) + header + bytes(data if random.random() < 0.5 else at)


def config(random: random.Random) -> dict[str, Any]:
    """A real model's config with a few fields of a wrong kind, out of every range, or gone."""
    bases: list[dict[str, Any]] = [
        LLAMA_2_7B,
        QWEN2_0_5B,
        OPT_125M,
        PYTHIA_160M,
        *(found for found, _ in OTHERS.values()),
    ]
    forged = dict(random.choice(bases))
    for _ in range(random.randrange(1, 4)):
        field = random.choice(list(forged) or ["model_type"])
        match random.randrange(4):
            case 0:
                forged.pop(field, None)
            case 1:
                forged[field] = [random.choice(NUMBERS)] * random.randrange(0, 3)
            case _:
                forged[field] = random.choice(NUMBERS)
    return forged


def at_most(most_bytes: int, work: Callable[[], object]) -> None:
    tracemalloc.start()
    try:
        work()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most_bytes


def test_a_forged_header_is_read_or_refused_by_name_and_takes_no_memory(tmp_path: Path) -> None:
    source, read = random.Random(0), 0
    file = tmp_path / "model.safetensors"

    def try_all() -> None:
        nonlocal read
        for number in range(HEADERS):
            content = header_file(source)
            file.write_bytes(content)
            try:
                header = read_header(file)
            except CorruptSafetensors as refusal:
                assert refusal.file == file.name, number  # noqa: PT017 - of some of many
            else:
                read += 1
                assert all(entry.end + header.data_offset <= len(content) for entry in header.tensors.values()), number

    at_most(MOST_BYTES, try_all)
    assert HEADERS / 20 < read < HEADERS / 2, "many are nearly right"


def test_a_forged_config_is_planned_or_refused_and_takes_no_memory() -> None:
    source, planned = random.Random(1), 0

    def try_all() -> None:
        nonlocal planned
        for number in range(CONFIGS):
            forged = config(source)
            try:
                request = PlanRequest.model_validate({"model": {"config": forged}, "target": {"layers": 2}})
                assert request.model.config is not None
                inline_facts(request.model.config)
                planned += 1
            except (ArchitectureError, InvalidRequest, ValidationError):
                continue
            except Exception as fault:
                pytest.fail(f"config {number} ({json.dumps(forged, default=str)[:500]}): {fault!r}")

    at_most(MOST_BYTES, try_all)
    assert planned > CONFIGS / 20
