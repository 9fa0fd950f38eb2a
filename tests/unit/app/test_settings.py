"""Settings that could not do what they say are refused at boot, in one sentence."""

import pytest

from app.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"broker_url": "filesystem:///srv/broker"}, "must be exactly filesystem://"),
        ({"broker_url": "filesystem://srv"}, "must be exactly filesystem://"),
        ({"store_url": "file://srv/store"}, "three slashes"),
        ({"upstream": "huggingface.co"}, "address of a hub"),
        ({"upstream": "https://hub?x=1"}, "address of a hub"),
        ({"upstream": "https://me:secret@hub"}, "must hold no credentials"),
        ({"upstream": "http://hub", "upstream_token": "hf_x"}, "others can read it"),
        ({"worker_memory": "24"}, "such as 24g"),
        ({"worker_memory": "24GB"}, "such as 24g"),
        ({"largest_worker_memory": "0g"}, "such as 24g"),
    ],
)
def test_what_could_not_work_is_refused(changes: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_settings(**changes)


def test_what_works_is_taken() -> None:
    settings = load_settings(broker_url="filesystem://", store_url="file:///srv/store", upstream="")
    assert settings.broker == "filesystem://"
    assert str(settings.store_dir) == "/srv/store"
    assert load_settings(upstream="http://127.0.0.1:9", upstream_token="hf_x").upstream_token is not None


def test_memory_is_said_in_a_cards_gigabytes_or_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(worker_memory="24g").worker_memory == 23_500_000_000, "what such a card leaves at least"
    assert load_settings(worker_memory="25000000000").worker_memory == 25_000_000_000
    assert load_settings(worker_memory="auto").worker_memory == "auto"
    monkeypatch.setenv("STREAMLINE_WORKER_MEMORY", "")
    assert load_settings().worker_memory is None
    assert load_settings().largest_worker_memory == 84_500_000_000
