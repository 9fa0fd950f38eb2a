import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.hub.byte_range import RangeNotSatisfiable, etag_matches, parse_range

sizes = st.integers(0, 2**40)
offsets = st.integers(0, 2**41)


@given(first=offsets, last=offsets, size=sizes)
def test_a_closed_range_is_the_slice_that_it_says(first: int, last: int, size: int) -> None:
    header = f"bytes={first}-{last}"
    if first > last or first >= size:
        with pytest.raises(RangeNotSatisfiable):
            parse_range(header, size)
        return
    part = parse_range(header, size)
    assert part is not None
    assert (part.start, part.end) == (first, min(last + 1, size))
    assert part.content_range == f"bytes {part.start}-{part.end - 1}/{size}"


@given(first=offsets, size=sizes)
def test_an_open_range_goes_to_the_end(first: int, size: int) -> None:
    if first >= size:
        with pytest.raises(RangeNotSatisfiable):
            parse_range(f"bytes={first}-", size)
        return
    part = parse_range(f"bytes={first}-", size)
    assert part is not None
    assert (part.start, part.end) == (first, size)


@given(last=offsets, size=sizes)
def test_a_suffix_is_the_last_bytes(last: int, size: int) -> None:
    if not last or not size:
        with pytest.raises(RangeNotSatisfiable):
            parse_range(f"bytes=-{last}", size)
        return
    part = parse_range(f"bytes=-{last}", size)
    assert part is not None
    assert (part.start, part.end) == (max(size - last, 0), size)


@given(header=st.text(max_size=40) | st.text("bytes=-,0123456789 +_", max_size=40).map("bytes={}".format), size=sizes)
def test_whatever_is_sent_the_range_lies_in_the_file(header: str, size: int) -> None:
    try:
        part = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    assert part is None or 0 <= part.start < part.end <= size == part.size


@pytest.mark.parametrize("header", [None, "items=0-1", "nonsense", "", "bytes=0-1,4-5"])
def test_what_a_server_must_or_may_ignore_means_the_whole_file(header: str | None) -> None:
    assert parse_range(header, 10) is None


@pytest.mark.parametrize(
    "header", ["bytes=", "bytes=-", "bytes=a-b", "bytes=+1-2", "bytes=1_0-2_0", "bytes=" + "9" * 50 + "-"]
)
def test_malformed_ranges_are_refused(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 100)


def test_an_etag_matches_itself_in_a_list_weak_or_as_a_star() -> None:
    for header in ('"a"', 'W/"a"', '"b", "a"', "*", ' "a" '):
        assert etag_matches(header, '"a"')
    for other in (None, "", '"b"', "a"):
        assert not etag_matches(other, '"a"')
