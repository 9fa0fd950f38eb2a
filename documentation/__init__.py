"""The documentation's pages that are made from the code, so that they cannot say anything else than it does.

`hooks.py` gives them to mkdocs while it builds the site (`make docs`); nothing of them is committed. Each module makes
one page. What describes the worker is read from its source and not imported, so that the site builds without torch.
"""
