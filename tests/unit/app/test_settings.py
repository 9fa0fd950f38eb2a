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
