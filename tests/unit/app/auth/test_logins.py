"""A login can be made by this service alone, holds no key, and is of no use for anything else."""

from pathlib import Path

import pytest

from app.auth.logins import COOKIE, Logins, cookie_in
from app.auth.loopback import sent_by_own_page
from app.hub.tickets import TicketOffice


def test_a_login_is_read_by_every_process_that_shares_the_key_file(tmp_path: Path) -> None:
    value = Logins(tmp_path / "key").issue("abcd1234")
    for cookie in (f"{COOKIE}={value}", f"theme=dark; {COOKIE}={value}; other=1"):
        found = Logins(tmp_path / "key").read({"cookie": cookie})
        assert found is not None
        assert found.key_id == "abcd1234"


def test_each_login_is_one_of_its_own(tmp_path: Path) -> None:
    logins = Logins(tmp_path / "key")
    made = [logins.read({"cookie": f"{COOKIE}={logins.issue('abcd1234')}"}) for _ in range(3)]
    assert len({login.sha256 for login in made if login}) == 3


def test_a_login_of_an_older_release_counts_and_can_be_ended(tmp_path: Path) -> None:
    value = TicketOffice(tmp_path / "key").issue("login", {"key": "abcd1234"}, seconds=60)
    found = Logins(tmp_path / "key").read({"cookie": f"{COOKIE}={value}"})
    assert found is not None
    assert (found.key_id, len(found.sha256)) == ("abcd1234", 64)


def test_what_was_not_made_here_is_no_login(tmp_path: Path) -> None:
    logins = Logins(tmp_path / "key")
    value = logins.issue("abcd1234")
    others = Logins(tmp_path / "another").issue("abcd1234")
    upload = TicketOffice(tmp_path / "key").issue("upload", {"key": "abcd1234"}, seconds=60)
    late = TicketOffice(tmp_path / "key").issue("login", {"key": "abcd1234"}, seconds=-1)
    for bad in ("", "x", value[:-1], value + "x", f"{value.partition('.')[0]}.", others, upload, late, '"', "ä"):
        assert logins.read({"cookie": f"{COOKIE}={bad}"}) is None, bad
    assert logins.read({}) is None
    assert cookie_in({"cookie": f"other_{COOKIE}={value}"}) == ""


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({}, False),
        ({"origin": "https://here.example"}, True),
        ({"origin": "https://here.example", "sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"origin": "https://here.example", "sec-fetch-site": "same-site"}, False),
        ({"origin": "https://elsewhere.example", "sec-fetch-site": "same-origin"}, False),
        ({"origin": "https://elsewhere.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "none"}, False),
    ],
)
def test_a_request_is_of_our_own_page_only_where_the_browser_says_so(headers: dict[str, str], own: bool) -> None:
    assert sent_by_own_page({"host": "here.example"} | headers) is own
