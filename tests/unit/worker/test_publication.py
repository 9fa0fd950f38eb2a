"""What publishing promises about hashes: the checkpoint's, and those of what it was made from."""

from app.hub.objects import TreeFile
from worker.publication import checkpoint_hash, own_text

WEIGHTS, CONFIG = TreeFile("model.safetensors", 9, "a" * 64, "b" * 40), TreeFile("config.json", 2, "c" * 64, "d" * 40)


def test_the_hash_is_that_of_every_file_of_the_model_and_of_none_about_it() -> None:
    about = [TreeFile(name, 5, "e" * 64, "f" * 40) for name in ("README.md", "provenance.json", "provenance.json.sig")]
    assert checkpoint_hash([WEIGHTS, CONFIG, *about]) == checkpoint_hash([CONFIG, WEIGHTS])
    assert checkpoint_hash([WEIGHTS]) != checkpoint_hash([CONFIG])


def test_what_the_model_wrote_itself_has_its_hash_among_those_of_the_data() -> None:
    lineage = {"data": {"builtin:self": "1" * 64, "ds": "2" * 64}}
    assert own_text({"lineage": lineage}) == {"builtin:self": "1" * 64}
    for report in ({"lineage": {"data": {"builtin:self": None}}}, {"lineage": None}, {}):
        assert own_text(report) == {}
