"""What a process finds wrong with the place that it was put at."""

import os
import re
from pathlib import Path

import pytest

from app.environment import make_data_dir, need_data_dir, need_model_roots, unknown_variables
from app.settings import Settings, SettingsError
from tests.conftest import REPOSITORY


def test_a_misspelt_setting_is_told_with_the_name_that_it_is_near() -> None:
    (said,) = unknown_variables({"STREAMLINE_MAXX_ATTEMPTS": "5", "STREAMLINE_MAX_ATTEMPTS": "5", "PATH": "/bin"})
    assert said == (
        "STREAMLINE_MAXX_ATTEMPTS is no setting of this version and changes nothing; "
        "did you mean STREAMLINE_MAX_ATTEMPTS?"
    )
    assert unknown_variables({"STREAMLINE_ZZZ": ""})[0].endswith("lists them all.")


def test_variables_of_clients_recipes_tests_and_kubernetes_are_not_taken_for_misspelt_ones() -> None:
    recipes = "".join(path.read_text() for path in (REPOSITORY / "recipes").rglob("*.*"))
    names = (
        *re.findall(r"STREAMLINE_(\w+)", recipes),
        "TEST_DATABASE_URL",
        "API_SERVICE_HOST",
        "API_SERVICE_PORT_HTTP",
    )
    kubernetes = ("API_PORT", "API_PORT_8000_TCP", "API_PORT_8000_TCP_ADDR")
    assert unknown_variables({f"STREAMLINE_{name}": "" for name in (*names, *kubernetes)}) == []


def test_a_data_directory_that_cannot_be_is_refused_under_its_variable(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for place, words in ((file, "a file of this name"), (file / "below", "Not a directory")):
        with pytest.raises(SettingsError, match=f"STREAMLINE_DATA_DIR: .*{words}"):
            make_data_dir(Settings(data_dir=place))
    need_data_dir(Settings(data_dir=tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()


def test_a_data_directory_that_this_user_may_not_write_to_is_refused_under_its_variable(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    before = os.geteuid()
    if before == 0:  # who may everything
        os.seteuid(65534)
    try:
        with pytest.raises(SettingsError, match="STREAMLINE_DATA_DIR: .* write to"):
            need_data_dir(Settings(data_dir=tmp_path))
    finally:
        os.seteuid(before)
        tmp_path.chmod(0o755)


def test_a_root_of_models_that_is_not_there_is_refused(tmp_path: Path) -> None:
    need_model_roots(Settings(model_roots=(tmp_path,)))
    with pytest.raises(SettingsError, match="STREAMLINE_MODEL_ROOTS must name directories; there is none at /nope"):
        need_model_roots(Settings(model_roots=(tmp_path, Path("/nope"))))
