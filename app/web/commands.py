"""A request as what a person pastes into a terminal. The key stays in the terminal's environment."""

import json
from collections.abc import Mapping
from typing import Any, Final

_END: Final = "END"
"""Closes the text; JSON has no line that is this word alone."""


def as_curl(address: str, request: Mapping[str, Any], *, keyed: bool) -> str:
    """The request with nothing but curl."""
    key = '-H "Authorization: Bearer $STREAMLINE_API_KEY" ' if keyed else ""
    return f"curl -sS {address}/v1/jobs {key}-H 'Content-Type: application/json' --data-binary @- {_text(request)}"


def as_cli(address: str, request: Mapping[str, Any], *, keyed: bool) -> str:
    """The request with our own command, which waits for the outcome."""
    key = "# STREAMLINE_API_KEY must hold your key.\n" if keyed else ""
    return f"{key}export STREAMLINE_URL={address}\nstreamline submit /dev/stdin --wait {_text(request)}"


def _text(request: Mapping[str, Any]) -> str:
    # Quoted, so that a shell takes every character of it as it is.
    return f"<<'{_END}'\n{json.dumps(request, indent=2, ensure_ascii=False)}\n{_END}"
