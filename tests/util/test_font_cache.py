"""The list of fonts: in a temporary folder where the home has none, else the user's own."""

import os

import pytest

from spear_deploy.util.font_cache import VARIABLE, keep_fonts_out_of_home


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in (VARIABLE, "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_an_empty_home_stays_empty(home):
    with keep_fonts_out_of_home():
        folder = os.environ[VARIABLE]
        assert os.path.isdir(folder) and not folder.startswith(str(home))
    assert VARIABLE not in os.environ and not os.path.exists(folder) and list(home.iterdir()) == []


@pytest.mark.parametrize("folder", [".cache/matplotlib", ".config/matplotlib", ".matplotlib"])
def test_what_the_user_has_is_read(home, folder):
    (home / folder).mkdir(parents=True)
    with keep_fonts_out_of_home():
        assert VARIABLE not in os.environ


def test_a_folder_that_the_user_names_stays(home, monkeypatch):
    monkeypatch.setenv(VARIABLE, "there")
    with keep_fonts_out_of_home():
        assert os.environ[VARIABLE] == "there"
    assert os.environ[VARIABLE] == "there"
