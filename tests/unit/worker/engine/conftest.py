"""One tiny model per family, made once for all engine tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.unit.worker.engine.tiny_models import CONFIGS, FURTHER, save_model
from worker.engine.decoder import Decoder, load_decoder


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(model_type: str) -> Path:
        if model_type not in made:
            made[model_type] = save_model(tmp_path_factory.mktemp(model_type), model_type)
        return made[model_type]

    return get


@pytest.fixture(params=CONFIGS)
def decoder(request: pytest.FixtureRequest, tiny_directory: Callable[[str], Path]) -> Decoder:
    """A decoder of each of the commonest families in turn."""
    return load_decoder(tiny_directory(request.param), "cpu")


@pytest.fixture(params=[*CONFIGS, *FURTHER])
def any_decoder(request: pytest.FixtureRequest, tiny_directory: Callable[[str], Path]) -> Decoder:
    """A decoder of each family with a test of its own in turn."""
    return load_decoder(tiny_directory(request.param), "cpu")


@pytest.fixture
def llama(tiny_directory: Callable[[str], Path]) -> Decoder:
    return load_decoder(tiny_directory("llama"), "cpu")


@pytest.fixture
def ids() -> torch.Tensor:
    """Token ids [3, 12]."""
    return torch.randint(2, 64, (3, 12), generator=torch.Generator().manual_seed(5))
