"""There is one client, and the one for ordinary code is made from it."""

from app.synchronous_client import SOURCE, source


def test_the_committed_client_is_what_is_made_from_the_one_for_asyncio() -> None:
    committed = SOURCE.with_name("streamline.py").read_text(encoding="utf-8")
    assert committed == source(), "change asynchronous.py and run `make client`"
