"""Messages are signed as the specification's own library reads them; secrets are stored so that only we read them."""

import os
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from app.core.redaction import without_keys
from app.webhooks.signatures import SecretBox, SecretUnreadableError, new_secret, signed_headers


@given(st.text(max_size=200))
def test_the_reference_library_verifies_what_we_sign_and_nothing_else(payload: str) -> None:
    payload = payload.encode("utf-8", "replace").decode()
    secret, now = new_secret(), datetime.now(UTC)
    headers = signed_headers([secret], "msg_1", now, payload)
    Webhook(secret).verify(payload.encode(), headers, json_parse=False)
    for wrong in (
        {"data": payload + " ", "headers": headers},
        {"data": payload, "headers": headers | {"webhook-id": "msg_2"}},
        {"data": payload, "headers": headers | {"webhook-timestamp": str(int(now.timestamp()) + 1)}},
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(**wrong, json_parse=False)  # type: ignore[arg-type]
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(payload, headers, json_parse=False)


def test_the_moment_is_signed_whatever_time_zone_it_is_told_in() -> None:
    secret, now = new_secret(), datetime.now(UTC)
    elsewhere = now.astimezone(timezone(timedelta(hours=7)))
    assert signed_headers([secret], "msg_1", elsewhere, "{}") == signed_headers([secret], "msg_1", now, "{}")


def test_of_several_secrets_the_reference_library_verifies_with_any_and_with_no_other() -> None:
    known = [new_secret(), new_secret()]
    headers = signed_headers(known, "msg_1", datetime.now(UTC), "{}")
    for secret in known:
        Webhook(secret).verify("{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify("{}", headers)


def test_a_secret_has_256_bits_and_the_form_that_libraries_read() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(secret.startswith("whsec_") and len(secret) == 6 + 44 for secret in made)


def test_a_stored_secret_can_be_read_with_the_same_key_and_for_the_same_endpoint_alone() -> None:
    key, secret = os.urandom(32), new_secret()
    sealed = SecretBox(key).seal(secret, "w1")
    assert secret not in sealed
    assert len(sealed) <= 200, "as long as the column"
    assert sealed != SecretBox(key).seal(secret, "w1"), "equal secrets do not show"
    assert SecretBox(key).open(sealed, "w1") == secret
    for box, webhook in ((SecretBox(os.urandom(32)), "w1"), (SecretBox(key), "w2")):
        with pytest.raises(SecretUnreadableError):
            box.open(sealed, webhook)
    for damaged in ("", "x", "AAAA", sealed[:-8]):
        with pytest.raises(SecretUnreadableError):
            SecretBox(key).open(damaged, "w1")


def test_a_secret_that_gets_into_a_line_of_the_log_is_made_unusable() -> None:
    secret = new_secret()
    assert secret[6:] not in without_keys(f"made {secret} for w1")
