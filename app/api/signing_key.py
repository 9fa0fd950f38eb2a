"""`GET /v1/signing-key`: the public half of the key that published revisions are signed with."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from app.api.deps import Parts

router = APIRouter(prefix="/v1", tags=["models"])


_PEM = "application/x-pem-file"


class _PemResponse(PlainTextResponse):
    media_type = _PEM


@router.get("/signing-key", response_class=_PemResponse, responses={200: {"content": {_PEM: {}}}})
def signing_key(parts: Parts) -> Response:
    """The Ed25519 public key as PEM, for `streamline verify`; it is public, and needs no API key."""
    return _PemResponse(parts.signer.public_pem)
