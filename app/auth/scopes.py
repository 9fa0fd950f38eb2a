"""What a key allows."""

from enum import StrEnum


class Scope(StrEnum):
    """What a key allows: `submit` includes `read`, `admin` includes both."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"

    def includes(self, needed: "Scope") -> bool:
        """Whether a key of this scope may do what needs `needed`."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)
