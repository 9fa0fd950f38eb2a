"""Which hub is meant: the service's own variables first, then those that Hugging Face clients on the machine use."""

import os
from dataclasses import dataclass
from typing import Any

from app.client.calls import connection, shown


@dataclass(frozen=True)
class HubAddress:
    """A hub, how to reach it, and whence its key comes."""

    connection: dict[str, Any]
    """Arguments of an httpx client for it."""
    key_variable: str

    @property
    def url(self) -> str:
        """Its address as it may be shown, without a slash at its end."""
        return shown(self.connection["base_url"])

    @property
    def keyed(self) -> bool:
        """Whether a key is sent."""
        return bool(self.connection["headers"])


def hub_address() -> HubAddress:
    """STREAMLINE_URL, else HF_ENDPOINT, else this machine's own service.

    Raises:
        UnreachableError: the address is none, or the key holds what no header can.
    """
    endpoint = os.environ.get("HF_ENDPOINT")
    if os.environ.get("STREAMLINE_URL") or not endpoint:
        return HubAddress(connection(None, None), "STREAMLINE_API_KEY")
    token = os.environ.get("HF_TOKEN", "").strip()
    found = connection(endpoint, token)
    if not token:  # STREAMLINE_API_KEY is for another address
        found["headers"] = {}
    return HubAddress(found, "HF_TOKEN")
