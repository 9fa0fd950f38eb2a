"""URLs are taken apart once, names resolved once, and all of their addresses looked at."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.webhooks.addresses import AllowList
from app.webhooks.targets import Target, TargetRefusedError, addresses_of, parse

NOBODY = AllowList()


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://ci.example.com/a?b=c", Target("https", "ci.example.com", 443, "ci.example.com", "/a?b=c")),
        ("http://CI.example.com:8080", Target("http", "ci.example.com", 8080, "ci.example.com:8080", "/")),
        ("https://[2606:4700::1111]:444/x", Target("https", "2606:4700::1111", 444, "[2606:4700::1111]:444", "/x")),
        ("https://bücher.example/", Target("https", "xn--bcher-kva.example", 443, "xn--bcher-kva.example", "/")),
    ],
)
def test_a_url_is_taken_apart(url: str, target: Target) -> None:
    assert parse(url) == target


@pytest.mark.parametrize(
    "url",
    [
        "", "/hook", "ci.example.com", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com", "http://",
        "http:///x", "https://user@example.com/", "https://user:password@example.com/", "https://@example.com/",
        "https://example.com/#part", "https://example.com:0/", "https://example.com:65536/", "https://example.com:x/",
        "http://exa mple.com/", "http://example.com/\r\nHost: x", "http://example.com/\0", "http://[::1/", "http://[x]/",
        "unix:///var/run/docker.sock", "https://example.com/" + "x" * 2000,
    ],
)  # fmt: skip
def test_what_is_no_url_that_messages_are_sent_to_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(TargetRefusedError, match=r"\.$"):
        parse(url)


@given(st.text(max_size=60))
def test_any_text_is_taken_apart_or_refused(text: str) -> None:
    for url in (text, f"http://{text}", f"https://example.com/{text}"):
        try:
            target = parse(url)
        except TargetRefusedError:
            continue
        assert target.host.isascii()
        assert target.path.startswith("/")
        assert target.path.isascii()


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]", "0.0.0.0",
     "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "169.254.169.254", "[fe80::1]"],
)  # fmt: skip
def test_this_machine_and_its_network_are_not_sent_to_however_they_are_written(host: str) -> None:
    with pytest.raises(TargetRefusedError):
        addresses_of(parse(f"http://{host}/"), NOBODY)


def test_a_name_that_is_not_known_and_one_that_leads_inside_are_told_alike() -> None:
    said = []
    for host in ("localhost", "nothing.invalid"):
        with pytest.raises(TargetRefusedError) as refusal:
            addresses_of(parse(f"http://{host}/"), NOBODY)
        said.append(str(refusal.value).replace(host, "HOST"))
    assert said[0] == said[1]
    assert "127" not in said[0]


def test_what_the_operator_allows_is_resolved() -> None:
    loopback = {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")}
    by_name = addresses_of(parse("http://localhost:8080/"), AllowList.of(["localhost"]))
    assert by_name
    assert set(by_name) <= loopback
    by_address = addresses_of(parse("http://127.0.0.1/"), AllowList.of(["127.0.0.0/8"]))
    assert by_address == [ipaddress.ip_address("127.0.0.1")]
