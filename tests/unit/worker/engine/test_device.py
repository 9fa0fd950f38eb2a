"""What is computed in which number format."""

from __future__ import annotations

import torch

from worker.engine.device import autocast, has_bfloat16_units


def test_products_are_bfloat16_only_where_the_weights_are_stored_so_and_the_processor_has_units() -> None:
    a = torch.ones(2, 2)
    for stored in (torch.float32, torch.float16):
        with autocast("cpu", stored):
            assert (a @ a).dtype == torch.float32
    with autocast("cpu", torch.bfloat16):
        assert (a @ a).dtype == (torch.bfloat16 if has_bfloat16_units() else torch.float32)
    with autocast("cpu", torch.bfloat16, torch.bfloat16):
        assert (a @ a).dtype == torch.float32, "what is computed in a half format is left as it is"
