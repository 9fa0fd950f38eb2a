"""Whether a process can work where the operator put it: its variables and its directories, looked at at its start."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Final

from app.settings import Settings, SettingsError

_PREFIX: Final = "STREAMLINE_"
_OF_OTHERS: Final = frozenset(
    {"URL", "API_KEY"}  # clients
    | {"ARGUMENTS", "CANCEL_WITH_BUILD", "INSTALL", "RUN", "SPEC", "TIMEOUT"}  # recipes
)
_TESTS: Final = "TEST_"
# Kubernetes tells every pod where the Service called streamline-api is, in variables of this form.
_OF_KUBERNETES: Final = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """A sentence about each variable that looks like a setting and is none."""
    known = {name.upper() for name in Settings.model_fields} | _OF_OTHERS
    given = {name.upper().removeprefix(_PREFIX) for name in environment if name.upper().startswith(_PREFIX)}
    return [_sentence(name, known) for name in sorted(given - known) if not _is_of_others(name)]


def _is_of_others(name: str) -> bool:
    return name.startswith(_TESTS) or _OF_KUBERNETES.fullmatch(name) is not None


def _sentence(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = (
        f"; did you mean {_PREFIX}{near[0]}?" if near else "; the settings' page of the documentation lists them all."
    )
    return f"{_PREFIX}{name} is no setting of this version and changes nothing{hint}"


def make_data_dir(settings: Settings) -> None:
    """Make the directory of everything that the service keeps.

    Raises:
        SettingsError: it cannot be.
    """
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file of this name is in the way" if isinstance(error, FileExistsError) else error.strerror
        raise SettingsError(
            f"STREAMLINE_DATA_DIR: {settings.data_dir} cannot be made ({reason}); name a directory that this user may "
            "write to."
        ) from None


def need_data_dir(settings: Settings) -> None:
    """Make it, for a process that writes there.

    Raises:
        SettingsError: this user may not write there.
    """
    make_data_dir(settings)
    if not os.access(settings.data_dir, os.W_OK | os.X_OK, effective_ids=True):
        raise SettingsError(
            f"STREAMLINE_DATA_DIR: this user may not write to {settings.data_dir}; give it the directory, or name "
            "another."
        )


def need_model_roots(settings: Settings) -> None:
    """Look at the directories that models are imported from: for the API, which does that.

    Raises:
        SettingsError: one is not there.
    """
    for root in settings.model_roots:
        if not root.is_dir():
            raise SettingsError(f"STREAMLINE_MODEL_ROOTS must name directories; there is none at {root}.")
