"""What a config says is believed within reason."""

from typing import Any

import pytest

from app.errors.references import UnreadableModel
from app.jobs.facts import inline_facts
from tests.unit.app.core.configs import LLAMA_2_7B


@pytest.mark.parametrize("config", [{"vocab_size": 10**300}, {"num_hidden_layers": 10**9}, {"hidden_size": True}])
def test_sizes_that_no_model_has_are_refused_at_once(config: dict[str, Any]) -> None:
    with pytest.raises(UnreadableModel):
        inline_facts(LLAMA_2_7B | config)
