"""What a service without API keys may be asked by: programs and pages of this machine, and nothing else.

Listening on loopback alone does not keep the web out, because a browser on this machine carries requests for any page.
A page whose name was re-pointed to 127.0.0.1 shows in `Host`, a form on a foreign page in `Origin`: a browser lets no
page choose either.
"""

import ipaddress
from collections.abc import Mapping

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class NotFromThisMachine(Exception):  # noqa: N818 - named for what happened
    """The service has no API keys, and the request may have been sent for a page of somewhere else."""

    def __init__(self) -> None:
        super().__init__(
            "Without API keys this service answers only requests to localhost, 127.0.0.1 or [::1], and takes changes "
            "from no other site's pages. Use such an address, or make a key with `streamline keys create` and send it."
        )


def is_loopback(host: str) -> bool:
    """Whether a host name or address, without a port, can only be this machine."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_link_local(host: str) -> bool:
    """Whether it is an address that is only good on this machine's own network segment: a cloud's metadata, say."""
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False


def check_local(method: str, headers: Mapping[str, str]) -> None:
    """Let pass what no foreign page can have sent.

    Args:
        method: of the request.
        headers: of the request, found by their lower-case names.

    Raises:
        NotFromThisMachine: `Host` is no loopback, or a change comes from a page of another site.
    """
    foreign = not is_safe(method) and "origin" in headers and not comes_from_here(headers)
    if foreign or not is_loopback(_without_port(headers.get("host", ""))):
        raise NotFromThisMachine


def is_safe(method: str) -> bool:
    """Whether requests of this method change nothing."""
    return method in _SAFE_METHODS


def comes_from_here(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a page of this very service sends the request."""
    origin = headers.get("origin", "")
    return bool(origin) and origin.partition("://")[2].lower() == headers.get("host", "").lower()


def sent_by_own_page(headers: Mapping[str, str]) -> bool:
    """Whether a browser says so in every way that it can, and in one at least (Fetch Metadata; RFC 6454)."""
    site = headers.get("sec-fetch-site", "same-origin" if "origin" in headers else "")
    return site == "same-origin" and ("origin" not in headers or comes_from_here(headers))


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
