"""Which recipes train through the whole model."""

import pytest

from app.core.losses import runs_the_model


@pytest.mark.parametrize(
    ("kind", "loss", "through"),
    [
        ("layer", "mse", False), ("layer", "cosine", False), ("layer", "mse+kd", True), ("ffn", "lm", True),
        ("none", "kd", False), ("linear_merged", "kd", False),
    ],
)  # fmt: skip
def test_only_what_is_trained_on_logits_runs_the_model(kind: str, loss: str, through: bool) -> None:
    assert runs_the_model(kind, loss) == through
