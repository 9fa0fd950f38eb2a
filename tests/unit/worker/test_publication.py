"""What publishing promises about the checkpoint's hash."""

from app.hub.objects import TreeFile
from worker.publication import checkpoint_hash

WEIGHTS, CONFIG = TreeFile("model.safetensors", 9, "a" * 64, "b" * 40), TreeFile("config.json", 2, "c" * 64, "d" * 40)


def test_the_hash_is_that_of_every_file_but_the_card() -> None:
    card = TreeFile("README.md", 5, "e" * 64, "f" * 40)
    assert checkpoint_hash([WEIGHTS, CONFIG, card]) == checkpoint_hash([CONFIG, WEIGHTS])
    assert checkpoint_hash([WEIGHTS]) != checkpoint_hash([CONFIG])
