from pathlib import Path

import pytest

from app.hub.errors import UpstreamLoop
from app.hub.upstream import ring


def test_all_processes_of_a_service_have_one_name_that_it_keeps(tmp_path: Path) -> None:
    name = ring.own_name(tmp_path / "upstream")
    assert len(name) == 32
    assert ring.own_name(tmp_path / "upstream") == name != ring.own_name(tmp_path / "another")


def test_what_was_written_into_the_header_is_read_from_it() -> None:
    written = ring.header_of(["a", "b"])
    assert ring.passed_by({name.lower(): value for name, value in written.items()}) == ("a", "b")
    assert ring.passed_by({}) == ring.passed_by({ring.HEADER.lower(): " , "}) == ()


def test_a_look_up_ends_where_it_has_been() -> None:
    assert ring.goes_on("a", ())
    assert ring.goes_on("a", ("b", "c"))
    assert not ring.goes_on("a", ("a", "b")), "two that mirror each other: what neither has is missing"
    assert not ring.goes_on("a", [str(number) for number in range(8)])
    with pytest.raises(UpstreamLoop, match="STREAMLINE_UPSTREAM"):
        ring.goes_on("a", ("b", "a"))
