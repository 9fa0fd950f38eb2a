"""`GET /v1/signing-key`: the public half of the key that published revisions are signed with."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from app.api.deps import Parts

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/signing-key", response_class=PlainTextResponse)
def signing_key(parts: Parts) -> PlainTextResponse:
    """The Ed25519 public key as PEM, for `streamline verify`; it is public, and needs no API key."""
    return PlainTextResponse(parts.signer.public_pem, media_type="application/x-pem-file")
