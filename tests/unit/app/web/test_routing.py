"""A login leads on within this service only."""

import pytest

from app.web.routing import local_path


@pytest.mark.parametrize("path", ["/", "/jobs/abc", "/?state=failed&label=a%3Db", "/models/team/x?revision=v1"])
def test_a_path_of_this_service_is_gone_on_to(path: str) -> None:
    assert local_path(path) == path


@pytest.mark.parametrize(
    "address",
    [
        None, "", "jobs", "https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example", "javascript:x()",
        "/\t/elsewhere.example", "/\n/elsewhere.example", "\\\\elsewhere.example", " //elsewhere.example", "/ /else",
    ],
)  # fmt: skip
def test_everything_else_is_the_start_page(address: str | None) -> None:
    assert local_path(address) == "/"
