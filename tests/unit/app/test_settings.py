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
        ({"largest_worker_memory": "auto"}, "STREAMLINE_LARGEST_WORKER_MEMORY must be .* bytes\\.$"),
        ({"database_url": "postgres://h/d"}, "STREAMLINE_DATABASE_URL must start with postgresql://"),
        ({"database_url": "postgresql://u:hush@h:notaport/d"}, "STREAMLINE_DATABASE_URL .* port must be a number"),
        ({"database_url": "postgresql://u:hu/sh@h/d"}, "STREAMLINE_DATABASE_URL .* written %2F"),
        ({"database_url": "mysql://h/d"}, "STREAMLINE_DATABASE_URL must start with postgresql://"),
        ({"broker_url": "redis://:hush@h:99999/0"}, "STREAMLINE_BROKER_URL .* port must be a number"),
        ({"broker_url": "redis://h:6379/twelve"}, "STREAMLINE_BROKER_URL must end with the number of a database"),
        ({"broker_url": "amqp://h"}, "STREAMLINE_BROKER_URL must start with redis://"),
        ({"worker_metrics": "127.0.0.1:99999"}, "STREAMLINE_WORKER_METRICS must be host:port"),
        ({"worker_metrics": "9808"}, "STREAMLINE_WORKER_METRICS must be host:port"),
        ({"device": "gpu"}, "^STREAMLINE_DEVICE must be 'auto', 'cpu' or 'cuda'\\.$"),
        ({"public_url": "streamline.example.com"}, "STREAMLINE_PUBLIC_URL must be an address such as https://"),
        ({"lease_seconds": "inf"}, "^STREAMLINE_LEASE_SECONDS must be a finite number\\.$"),
        ({"max_attempts": "many"}, "^STREAMLINE_MAX_ATTEMPTS must be a valid integer\\.$"),
        ({"lease_seconds": "3"}, "^STREAMLINE_LEASE_SECONDS must be at least twice STREAMLINE_HEARTBEAT_SECONDS"),
    ],
)
def test_what_could_not_work_is_refused(changes: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as refused:
        load_settings(**changes)
    assert str(refused.value).startswith("STREAMLINE_")
    assert "hush" not in str(refused.value)


def test_what_works_is_taken() -> None:
    settings = load_settings(broker_url="filesystem://", store_url="file:///srv/store", upstream="")
    assert settings.broker == "filesystem://"
    plain = load_settings(database_url="postgresql://h/d", broker_url="redis://:a%2Fb@h:6379/12;rediss://other")
    assert plain.database == "postgresql+psycopg://h/d"
    assert str(settings.store_dir) == "/srv/store"
    assert load_settings(upstream="http://127.0.0.1:9", upstream_token="hf_x").upstream_token is not None


def test_memory_is_said_in_a_cards_gigabytes_or_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(worker_memory="24g").worker_memory == 23_500_000_000, "what such a card leaves at least"
    assert load_settings(worker_memory="25000000000").worker_memory == 25_000_000_000
    assert load_settings(worker_memory="auto").worker_memory == "auto"
    monkeypatch.setenv("STREAMLINE_WORKER_MEMORY", "")
    assert load_settings().worker_memory is None
    assert load_settings().largest_worker_memory == 84_500_000_000
