"""The most that a key can be given: what its row can hold, and a life longer than anybody's."""

from typing import Final

LONGEST_DAYS: Final = 36_500
MOST: Final = 2**31 - 1
MOST_BYTES: Final = 2**53 - 1  # the largest integer that every JSON reader keeps exact
LONGEST_NAME: Final = 64
