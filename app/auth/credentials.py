"""The API key in a request's `Authorization`: a program's bearer token, or what a person typed into a browser.

A browser asks for a user name and a password (RFC 7617) where it is told to; the key is the password, and the name may
be anything. From then on it sends them along with every request to this service, whichever page makes it.
"""

import base64
import binascii
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders

_SCHEMES = ("Bearer", 'Basic realm="Streamline (any user name; the API key is the password)", charset="UTF-8"')


def ask_for_key(headers: MutableHeaders) -> None:
    """Give the answer to a request without a valid key its `WWW-Authenticate`: a line each, as Chromium reads them."""
    for scheme in _SCHEMES:
        headers.append("WWW-Authenticate", scheme)


def key_in(headers: Mapping[str, str]) -> str:
    """The key, valid or not; empty where there is none (headers found by their lower-case names)."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    return _password(value.strip()) if kind.lower() == "basic" else ""


def by_browser(headers: Mapping[str, str]) -> bool:
    """Whether the key is one that a browser sends by itself, also for pages of somebody else."""
    return headers.get("authorization", "")[:6].lower() == "basic "


def _password(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
