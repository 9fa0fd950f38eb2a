"""What mkdocs is given while it builds: the pages made from the code, and the plots."""

import re
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from documentation import plots
from documentation.pages import PAGES

_PLOT: Final = re.compile(r"^<!-- plot: ([a-z-]+) -->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made from the code."""
    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    files.append(File.generated(config, "stylesheets/plots.css", content=plots.style()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put each plot where its name stands."""
    return _PLOT.sub(lambda found: plots.figure(found[1]), markdown)
