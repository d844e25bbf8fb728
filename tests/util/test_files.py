"""Files are written whole or not at all."""

import os

import pytest

from spear_deploy.errors import FileError, did_you_mean
from spear_deploy.util.files import replace_file, require_file, write_json


def test_nothing_is_left_when_writing_fails(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(RuntimeError), replace_file(target) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


def test_folders_are_made_and_modes_follow_the_umask(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"a": 1})
    assert (tmp_path / "new" / "a.json").read_text() == '{\n "a": 1\n}\n'
    assert (tmp_path / "new" / "a.json").stat().st_mode & 0o444 == 0o444


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="cannot be written"):
        write_json(tmp_path / "file" / "a.json", {})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(FileError, match="cannot be written"):
        write_json(tmp_path / "a.json", {})
    assert os.listdir(tmp_path) == ["a.json"]


def test_existing_files(tmp_path):
    with pytest.raises(FileError, match="there is no such network; check the path"):
        require_file(tmp_path / "x", "network")
    (tmp_path / "x").write_text("")
    with pytest.raises(FileError, match="is empty, expected a network"):
        require_file(tmp_path / "x", "network")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_permissions(tmp_path):
    (tmp_path / "x").write_text("x")
    (tmp_path / "x").chmod(0)
    with pytest.raises(FileError, match="cannot be read; check its permissions"):
        require_file(tmp_path / "x", "network")
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="cannot be written"):
        write_json(tmp_path / "a.json", {})


def test_hints():
    assert did_you_mean("loihi", ["loihi2", "xylo"]) == "; did you mean 'loihi2'?"
    assert did_you_mean("zzz", ["loihi2"]) == ""


def test_no_folder_is_left_that_was_made_for_a_file_that_was_not_written(tmp_path):
    (tmp_path / "old").mkdir()
    for place in ("new/folder/a.txt", "old/b/a.txt"):
        with pytest.raises(ValueError, match="halfway"), replace_file(tmp_path / place):
            raise ValueError("halfway")
    assert sorted(os.listdir(tmp_path)) == ["old"] and os.listdir(tmp_path / "old") == []
    write_json(tmp_path / "new/folder/a.json", {})
    assert os.listdir(tmp_path / "new/folder") == ["a.json"]
