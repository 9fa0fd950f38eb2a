"""Secrets of webhooks and what is signed with them, as the Standard Webhooks specification 1.0.0 has it.

A secret is shown once, to whoever registers the endpoint, and is needed again with each delivery: it is stored, but
encrypted (AES-256-GCM, NIST SP 800-38D) under a key that is derived from the service's signing key. Who reads the
database, or a backup of it, signs nothing with it.
"""

import base64
import binascii
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from standardwebhooks import Webhook

_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32  # the specification asks for 24 to 64
_NONCE_BYTES: Final = 12
PURPOSE: Final = "webhook secrets"
"""What the key that secrets are encrypted under is derived for."""


class SecretUnreadableError(Exception):
    """A stored secret was encrypted under another key: the service's signing key is no longer the one it was."""


class SecretBox:
    """Encrypts secrets for the database."""

    def __init__(self, key: bytes) -> None:
        """Use `key`, 32 bytes."""
        self._cipher = AESGCM(key)

    def seal(self, secret: str, webhook_id: str) -> str:
        """The secret as it is stored; it can be opened for this endpoint alone."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, secret.encode(), webhook_id.encode())).decode()

    def open(self, sealed: str, webhook_id: str) -> str:
        """The secret.

        Raises:
            SecretUnreadableError: it was sealed with another key, or for another endpoint.
        """
        try:
            stored = base64.b64decode(sealed, validate=True)
            nonce, rest = stored[:_NONCE_BYTES], stored[_NONCE_BYTES:]
            return self._cipher.decrypt(nonce, rest, webhook_id.encode()).decode()
        except (InvalidTag, binascii.Error, ValueError):
            raise SecretUnreadableError from None


def new_secret() -> str:
    """A secret of 256 bits in the form that libraries of the specification read."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signed_headers(of: Sequence[str], message_id: str, moment: datetime, payload: str) -> dict[str, str]:
    """The headers that prove who has sent the payload, and when.

    Args:
        of: secrets of the endpoint, a signature of each: receivers look for one that they can verify, so that a secret
            can be changed while messages come.
        message_id: of the delivery, the same for every attempt: receivers tell repetitions by it.
        moment: of this attempt; receivers refuse one of more than five minutes ago.
        payload: exactly what is sent.
    """
    utc = moment.astimezone(UTC)  # the library takes a time of any zone for one of UTC
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(utc.timestamp())),
        "webhook-signature": " ".join(
            Webhook(secret).sign(msg_id=message_id, timestamp=utc, data=payload) for secret in of
        ),
    }
