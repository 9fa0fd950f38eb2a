"""From a webhook's URL to the very addresses that its requests go to.

A name is resolved once per attempt; all of its addresses are looked at, and the connection goes to one of them. Whoever
answers for the name cannot show one address to the check and another to the connection (DNS rebinding).
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final

import httpx

from app.webhooks.addresses import Address, AllowList

LONGEST_URL: Final = 2000
ALLOWED: Final = "http:// or https://, a host with public addresses, no user name, no password, no fragment"
_MOST_ADDRESSES: Final = 3


class TargetRefusedError(Exception):
    """The URL is none that requests are sent to; the message is a sentence without the addresses behind a name."""


@dataclass(frozen=True)
class Target:
    """A URL taken apart."""

    scheme: str
    host: str
    """In ASCII, without the brackets of IPv6."""
    port: int
    authority: str
    """What `Host` says."""
    path: str
    """With the query."""


def parse(url: str) -> Target:
    """Take a URL apart.

    Raises:
        TargetRefusedError: it is none, or of a form that is not sent to.
    """
    if len(url) > LONGEST_URL or not url.isprintable() or " " in url:
        raise TargetRefusedError(f"A URL has at most {LONGEST_URL:,} characters, no space and no control characters.")
    try:
        parts = httpx.URL(url)
        host, path = parts.raw_host.decode("ascii"), parts.raw_path.decode("ascii")
    except (httpx.InvalidURL, UnicodeError, ValueError, TypeError):
        raise TargetRefusedError("The text is no URL.") from None
    if parts.scheme not in {"http", "https"}:
        raise TargetRefusedError("The URL begins with neither http:// nor https://.")
    if not host:
        raise TargetRefusedError("The URL names no host.")
    if "@" in re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]:
        raise TargetRefusedError("The URL holds a user name or a password; receivers check the signature instead.")
    if "#" in url:
        raise TargetRefusedError("The URL has a fragment (#...), which no request carries.")
    port = parts.port if parts.port is not None else {"http": 80, "https": 443}[parts.scheme]
    if not 1 <= port <= 65535:
        raise TargetRefusedError("A port is a number from 1 to 65535.")
    return Target(parts.scheme, host, port, parts.netloc.decode("ascii"), path)


def addresses_of(target: Target, allowed: AllowList) -> list[Address]:
    """Where requests to the target go, in the resolver's order. May take as long as the resolver does.

    Raises:
        TargetRefusedError: an address is neither public nor allowed, or there is none. Which of the two a name is told
            alike: what names there are inside of this network is nobody's business.
    """
    literal = _literal(target.host)
    if literal is not None:
        reason = allowed.refusal(target.host, literal)
        if reason is not None:
            raise TargetRefusedError(f"The address {target.host} is not public: {reason}.")
        return [literal]
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        addresses = list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))
    except (OSError, UnicodeError, ValueError):
        addresses = []
    if not addresses or any(allowed.refusal(target.host, address) is not None for address in addresses):
        raise TargetRefusedError(f"The host {target.host} is not known to have public addresses, and only such.")
    return addresses[:_MOST_ADDRESSES]


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
