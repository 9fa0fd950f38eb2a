"""What a client may make this machine send requests to: public addresses, however they are written, and no others."""

import ipaddress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.settings import SettingsError, load_settings
from app.webhooks.addresses import AllowList, embedded, special_purpose

NOBODY = AllowList()
IPV4 = st.integers(0, 2**32 - 1).map(IPv4Address)
IPV6 = st.integers(0, 2**128 - 1).map(IPv6Address)
GLOBAL_IPV6 = st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(IPv6Address)


def below(prefix: str, address: IPv4Address) -> IPv6Address:
    """The IPv6 address that holds the IPv4 address in its last 32 bits."""
    return IPv6Address(int(IPv6Address(prefix)) | int(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
        "0.0.0.0", "0.1.2.3", "100.64.0.1", "100.127.255.255", "192.0.0.170", "192.0.2.1", "198.18.0.1", "198.19.9.9",
        "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.88.99.1", "203.0.113.7",
        "::", "::1", "fe80::1", "fe80::1%1", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1", "100::1", "2001:db8::1",
        "3fff::1", "2001:10::1", "2001:20::1", "5f00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::1", "2002:808:808::1",
        "2001:0:808:808::1", "2606:4700::5efe:7f00:1", "2606:4700::200:5efe:a00:1",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused_with_the_reason(address: str) -> None:
    reason = NOBODY.refusal("example.com", ipaddress.ip_address(address))
    assert reason, address
    assert "RFC" in reason


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "100.63.255.255", "100.128.0.1", "223.255.255.255", "11.0.0.1",
     "2606:4700::1111", "2a00:1450:4001::200e", "64:ff9b::101:101", "::ffff:8.8.8.8"],
)  # fmt: skip
def test_a_public_address_is_sent_to(address: str) -> None:
    assert NOBODY.refusal("example.com", ipaddress.ip_address(address)) is None


@given(IPV4)
def test_an_address_inside_of_ipv6_is_as_good_as_the_address_itself(address: IPv4Address) -> None:
    plain = special_purpose(address)
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        assert special_purpose(below(prefix, address)) == plain


@given(IPV4)
def test_no_other_form_that_leads_to_an_ipv4_address_is_sent_to(address: IPv4Address) -> None:
    number = int(address)
    forms = [
        below("::", address),  # IPv4-compatible (RFC 4291, 2.5.5.1)
        below("64:ff9b:1::", address),  # NAT64 of a local network (RFC 8215)
        below("::ffff:0:0:0", address),  # SIIT (RFC 2765)
        IPv6Address((0x2002 << 112) | (number << 80) | 1),  # 6to4
        IPv6Address((0x2001_0000 << 96) | (number << 64)),  # Teredo: the server
        IPv6Address((0x2001_0000 << 96) | (number ^ 0xFFFF_FFFF)),  # Teredo: the client
        below("2606:4700::5efe:0:0", address),  # ISATAP
        below("2606:4700::200:5efe:0:0", address),
    ]
    assert all(special_purpose(form) for form in forms)


@given(st.one_of(IPV4, IPV6, GLOBAL_IPV6))
def test_nothing_is_sent_to_that_the_standard_library_calls_special(address: IPv4Address | IPv6Address) -> None:
    if special_purpose(address) is not None:
        return
    inner = embedded(address)
    special = (inner.is_private, inner.is_loopback, inner.is_link_local, inner.is_multicast, inner.is_reserved)
    assert not any(special)
    assert inner.is_global


def test_the_operator_allows_hosts_addresses_and_networks() -> None:
    allowed = AllowList.of(["CI.internal", "127.0.0.1", "10.1.0.0/16", "fd00:1::/32"])
    local, private = ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("10.2.0.1")
    assert allowed.refusal("anything", local) is None
    assert allowed.refusal("anything", ipaddress.ip_address("127.0.0.2")) is not None
    assert allowed.refusal("anything", ipaddress.ip_address("10.1.255.1")) is None
    assert allowed.refusal("anything", private) is not None
    assert allowed.refusal("ci.internal.", private) is None
    assert allowed.refusal("other.ci.internal", private) is not None
    assert allowed.refusal("anything", ipaddress.ip_address("fd00:1::5")) is None
    assert allowed.refusal("anything", ipaddress.ip_address("::ffff:10.1.0.9")) is None
    assert allowed.refusal("anything", ipaddress.ip_address("::ffff:10.2.0.9")) is not None


@pytest.mark.parametrize("entry", ["10.1.2.3/16", "http://ci", "a b", "ci:8080", "*.internal", "10.0.0.0/33"])
def test_a_setting_that_is_none_is_refused_at_boot(entry: str) -> None:
    with pytest.raises(SettingsError, match="WEBHOOK_PRIVATE"):
        load_settings(webhook_private=entry)


def test_the_setting_is_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().webhook_private == ()
    monkeypatch.setenv("STREAMLINE_WEBHOOK_PRIVATE", "127.0.0.1, ci.internal,10.0.0.0/8")
    assert load_settings().webhook_private == ("127.0.0.1", "ci.internal", "10.0.0.0/8")
