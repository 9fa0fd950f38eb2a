"""The version of service and client, as `pyproject.toml` has it."""

from importlib.metadata import version

VERSION = version("streamline-compress")
VERSION_HEADER = "Streamline-Version"
"""Of every answer, so that a client can tell that the two are of different age."""
