"""The site builds without a warning and without torch, and asks no other machine for anything."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

_BUILD = (
    "import sys; sys.modules.update({name: None for name in ('torch', 'transformers')}); "
    "from mkdocs.__main__ import cli; cli()"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    build = ["build", "--strict", "--site-dir", str(directory)]
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, *build], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return directory


def test_the_site_asks_no_other_machine_for_anything(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", page.read_text(encoding="utf-8"))
        assert not [tag for tag in tags if re.search(r'(?:src|href)="?(?:https?:)?//', tag)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", style.read_text(encoding="utf-8")), style


def test_the_explanations_plots_are_drawn(site: Path) -> None:
    page = (site / "explanation/method.html").read_text(encoding="utf-8")
    assert page.count('<figure class="plot">') == page.count("<svg role") == 6
    assert "<!-- plot" not in page
    assert ".plot {" in (site / "stylesheets/plots.css").read_text(encoding="utf-8")
