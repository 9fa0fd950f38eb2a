"""Which addresses the service may be sent to by a client: public ones, and those that the operator has named.

A webhook's URL makes this machine send a request to wherever its author likes, and this machine stands inside of a
network. The rule is an allow-list: of IPv6 global unicast alone (RFC 4291, 2.4), less what IANA's registries of special
purposes (RFC 6890) take out of it; of IPv4 everything that they do not name. Tables of our own, because those of the
standard library differ from one patch release to the next.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Self

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SPECIAL_IPV4: Final = tuple(
    (IPv4Network(network), meaning)
    for network, meaning in (
        ("0.0.0.0/8", "this network (RFC 791)"),
        ("10.0.0.0/8", "private use (RFC 1918)"),
        ("100.64.0.0/10", "shared by a carrier's customers (RFC 6598)"),
        ("127.0.0.0/8", "loopback (RFC 1122)"),
        ("169.254.0.0/16", "link-local (RFC 3927)"),
        ("172.16.0.0/12", "private use (RFC 1918)"),
        ("192.0.0.0/24", "protocol assignments (RFC 6890)"),
        ("192.0.2.0/24", "documentation (RFC 5737)"),
        ("192.88.99.0/24", "6to4 relays (RFC 7526)"),
        ("192.168.0.0/16", "private use (RFC 1918)"),
        ("198.18.0.0/15", "benchmarks (RFC 2544)"),
        ("198.51.100.0/24", "documentation (RFC 5737)"),
        ("203.0.113.0/24", "documentation (RFC 5737)"),
        ("224.0.0.0/4", "multicast (RFC 5771)"),
        ("240.0.0.0/4", "reserved (RFC 1112)"),
    )
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_SPECIAL_IPV6: Final = tuple(
    (IPv6Network(network), meaning)
    for network, meaning in (
        ("2001::/32", "Teredo (RFC 4380)"),
        ("2001::/23", "protocol assignments (RFC 2928)"),
        ("2001:db8::/32", "documentation (RFC 3849)"),
        ("2002::/16", "6to4 (RFC 3056)"),
        ("3fff::/20", "documentation (RFC 9637)"),
    )
)
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_HOST: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})


def embedded(address: Address) -> Address:
    """The IPv4 address that packets to this one end at: of IPv4-mapped (RFC 4291, 2.5.5.2) and NAT64 (RFC 6052) ones.

    An IPv6 network whose resolver is a DNS64 knows public IPv4 hosts by the latter alone.
    """
    if isinstance(address, IPv6Address) and (address in _MAPPED or address in _NAT64):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def special_purpose(address: Address) -> str | None:
    """What makes the address no public one, in words; None where it is public."""
    inner = embedded(address)
    if isinstance(inner, IPv4Address):
        return _first(inner, _SPECIAL_IPV4)
    if inner not in _GLOBAL_UNICAST:
        return "not global unicast (RFC 4291)"
    if (int(inner) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return "ISATAP (RFC 5214)"  # a tunnel to the IPv4 address in its last 32 bits
    return _first(inner, _SPECIAL_IPV6)


def _first(address: Address, special: Iterable[tuple[Network, str]]) -> str | None:
    return next((meaning for network, meaning in special if address in network), None)


@dataclass(frozen=True)
class AllowList:
    """What may be sent to although it is not public: STREAMLINE_WEBHOOK_PRIVATE."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> Self:
        """Read host names, addresses and networks in CIDR notation.

        Raises:
            ValueError: an entry is none of these; a sentence.
        """
        hosts, networks = set[str](), list[Network]()
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                if not _HOST.fullmatch(plain_host(entry)):
                    raise ValueError(
                        f"{entry!r} is neither a host name nor an address nor a network such as 10.1.0.0/16 "
                        "(whose bits behind the prefix are 0)"
                    ) from None
                hosts.add(plain_host(entry))
        return cls(frozenset(hosts), tuple(networks))

    def refusal(self, host: str, address: Address) -> str | None:
        """Why nothing is sent to this address of this host; None where it may be."""
        if plain_host(host) in self.hosts:
            return None
        if any(form in network for form in (address, embedded(address)) for network in self.networks):
            return None
        return special_purpose(address)


def plain_host(host: str) -> str:
    """A host name as it is compared: in small letters, and without the dot of the root."""
    return host.lower().removesuffix(".")
