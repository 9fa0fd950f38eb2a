from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.hub.tickets import BadTicket, TicketOffice


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> TicketOffice:
    return TicketOffice(tmp_path_factory.mktemp("office") / "keys" / "links.key")


def test_processes_that_share_the_key_file_read_each_others_tickets(tmp_path: Path) -> None:
    first, second = TicketOffice(tmp_path / "key"), TicketOffice(tmp_path / "key")
    ticket = first.issue("upload", {"size": 5}, seconds=60)
    assert second.read("upload", ticket) == {"size": 5}
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0
    with pytest.raises(BadTicket):
        TicketOffice(tmp_path / "other").read("upload", ticket)


def test_a_ticket_is_for_one_purpose_and_for_a_time(tmp_path: Path) -> None:
    now = 1000.0
    office = TicketOffice(tmp_path / "key", now=lambda: now)
    ticket = office.issue("upload", {}, seconds=60)
    with pytest.raises(BadTicket):
        office.read("xet", ticket)
    now = 1061.0
    with pytest.raises(BadTicket):
        office.read("upload", ticket)


@given(position=st.integers(0, 200), character=st.characters(max_codepoint=0x2FF))
def test_a_ticket_with_any_letter_changed_is_refused(office: TicketOffice, position: int, character: str) -> None:
    ticket = office.issue("upload", {"size": 5}, seconds=60)
    position %= len(ticket)
    forged = ticket[:position] + character + ticket[position + 1 :]
    if forged != ticket:
        with pytest.raises(BadTicket):
            office.read("upload", forged)


@given(text=st.text(max_size=100))
def test_what_is_no_ticket_is_refused(office: TicketOffice, text: str) -> None:
    with pytest.raises(BadTicket):
        office.read("upload", text)
