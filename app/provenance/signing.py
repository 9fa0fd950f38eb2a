"""The service's Ed25519 key (RFC 8032): from the settings, or a file that only the service's user may read."""

import base64
import binascii

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from app.settings import Settings, SettingsError
from app.storage.staging import make_once

KEY_FILE = "signing-key.pem"
_HOW = "Make one with `openssl genpkey -algorithm ed25519`."


class Signer:
    """Signs what the service publishes."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def sign(self, content: bytes) -> bytes:
        """A detached signature: base64 of its 64 bytes, and a newline. The same bytes give the same signature."""
        return base64.b64encode(self._key.sign(content)) + b"\n"

    def key_for(self, purpose: str) -> bytes:
        """A secret key of 32 bytes for this purpose, derived from the private one (HKDF, RFC 5869).

        Every process of the service derives the same, and with another signing key another.
        """
        derive = HKDF(SHA256(), length=32, salt=None, info=f"streamline {purpose}".encode())
        return derive.derive(self._key.private_bytes_raw())

    @property
    def public_pem(self) -> str:
        """The public half, as PEM (SubjectPublicKeyInfo, RFC 8410)."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class BadPublicKeyError(ValueError):
    """The text is no Ed25519 public key in PEM."""


def load_signer(settings: Settings) -> Signer:
    """The service's signer: of STREAMLINE_SIGNING_KEY, else of the key file in the data directory.

    The first process that asks makes the file, with mode 0600; all others read that one.

    Raises:
        SettingsError: the setting or the file holds no Ed25519 private key.
    """
    if settings.signing_key is not None:
        # An environment file holds one line: its newlines are spelled.
        pem = settings.signing_key.get_secret_value().replace("\\n", "\n")
        return _signer(pem.encode(), "STREAMLINE_SIGNING_KEY")
    path = settings.data_dir.absolute() / KEY_FILE
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        make_once(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return _signer(path.read_bytes(), str(path))


def _signer(pem: bytes, where: str) -> Signer:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SettingsError(f"{where} holds no private key in PEM without a password. {_HOW}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"{where} holds a key of another kind than Ed25519. {_HOW}")
    return Signer(key)


def parse_public_key(pem: bytes) -> Ed25519PublicKey:
    """The public key that `--key` names.

    Raises:
        BadPublicKeyError: it is none.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise BadPublicKeyError("not a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise BadPublicKeyError("a key of another kind than Ed25519")
    return key


def is_signed(content: bytes, signature: bytes, key: Ed25519PublicKey) -> bool:
    """Whether `signature`, as `Signer.sign` writes it, is this key's over these bytes."""
    try:
        key.verify(base64.b64decode(signature.strip(), validate=True), content)
    except (InvalidSignature, binascii.Error):
        return False
    return True
