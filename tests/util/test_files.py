"""Files are written whole or not at all."""

import errno
import os
import stat
from zipfile import ZipFile

import numpy as np
import pytest

from spear_deploy.errors import FileError, did_you_mean, summarize_error
from spear_deploy.util import files
from spear_deploy.util.files import read_arrays, replace_file, require_file, write_json
from spear_deploy.util.folder_lock import own_folder


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(RuntimeError), replace_file(target) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


def test_an_error_about_a_temporary_file_names_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(FileError, match=f"^file '{tmp_path}/a.nir': holds NaN$"), replace_file(tmp_path / "a.nir") as aside:
        raise FileError(f"file '{aside}': holds NaN")


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


def test_a_folder_of_the_same_name_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.json").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in (tmp_path / "a.json", "", "."):
        with pytest.raises(FileError, match=f"^file '{name}': is a folder; give the name of a file in it$"):
            write_json(name, {})
    assert os.listdir(tmp_path) == ["a.json"] and not os.listdir("a.json")


def test_missing_and_empty_files_are_refused(tmp_path):
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


def test_did_you_mean_suggests_the_closest_word():
    assert did_you_mean("loihi", ["loihi2", "xylo"]) == "; did you mean 'loihi2'?"
    assert did_you_mean("zzz", ["loihi2"]) == ""
    assert did_you_mean("LOIHI2", ["loihi2", "xylo"]) == "; did you mean 'loihi2'?"


def test_an_error_in_foreign_code_is_its_class_and_its_first_line():
    assert summarize_error(RuntimeError("a\nb")) == "RuntimeError: a" and summarize_error(SystemExit()) == "SystemExit"


def test_a_pipe_or_device_is_neither_replaced_nor_read(tmp_path):
    """A rename over /dev/null, which an administrator may do, would put a file in its place."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="pipe': is a device or a pipe; give the name of a file$"):
        write_json(tmp_path / "pipe", {})
    with pytest.raises(FileError, match="pipe': is a device or a pipe, expected a network$"):
        require_file(tmp_path / "pipe", "network")
    with pytest.raises(FileError, match="^file '': the name is empty, expected that of a network$"):
        require_file("", "network")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode) and os.listdir(tmp_path) == ["pipe"]


def test_the_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to("place/a.json")
    for value in (1, 2):
        write_json(tmp_path / "link", value)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "place/a.json").read_text() == f"{value}\n"
    assert sorted(os.listdir(tmp_path)) == ["link", "place"]


@pytest.mark.parametrize("number, advice", [
    (errno.ENOSPC, "free some space, and run the command again"), (errno.EDQUOT, "free some space"), (errno.EROFS, "choose"),
])  # fmt: skip
def test_a_full_disk_is_told_from_a_place_that_is_not_writable(tmp_path, number, advice):
    for name in ("a.json", "new/a.json"):
        with (
            pytest.raises(FileError, match=rf"a.json': cannot be written \({os.strerror(number)}\); {advice}"),
            replace_file(tmp_path / name),
        ):
            raise OSError(number, os.strerror(number))
    assert not list(tmp_path.iterdir())


def test_a_failed_write_removes_the_folders_made_for_it(tmp_path):
    (tmp_path / "old").mkdir()
    for place in ("new/folder/a.txt", "old/b/a.txt"):
        with pytest.raises(ValueError, match="halfway"), replace_file(tmp_path / place):
            raise ValueError("halfway")
    assert sorted(os.listdir(tmp_path)) == ["old"] and os.listdir(tmp_path / "old") == []
    write_json(tmp_path / "new/folder/a.json", {})
    assert os.listdir(tmp_path / "new/folder") == ["a.json"]


def test_arrays_that_exceed_the_free_memory_are_refused_before_they_are_read(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(1 << 20, np.uint8))
    monkeypatch.setattr(files, "free_bytes", lambda: 1 << 20)
    with pytest.raises(FileError, match="holds 1 MiB of arrays and 1 MiB of memory are free, less than twice"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("change", [(b"{'descr'", b"{('descr'"), (b"'shape': (4,), ", b"'shape': (4,),["), (b"NUMPY", b"NUMPX")])
def test_an_array_whose_header_is_damaged_behind_a_right_checksum_is_refused(tmp_path, change):
    """numpy reads the header as Python, and returns a member without its magic as bytes."""
    np.savez(tmp_path / "a.npz", x=np.arange(4))
    with ZipFile(tmp_path / "a.npz") as archive:
        content = archive.read("x.npy")
    assert change[0] in content
    with ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content.replace(*change))
    with pytest.raises(FileError, match="cannot be read as .npz of plain arrays|'x' is no array; write it with numpy.savez"):
        read_arrays(tmp_path / "a.npz")


def test_a_file_reaches_the_disk_before_its_name(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("flush"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names: (events.append("rename"), rename(*names)))
    write_json(tmp_path / "a.json", {})
    assert events == ["flush", "rename"]


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path, name):
    match = r"path '.*a.*b': holds a character that no name can have; give another name"
    with pytest.raises(FileError, match=match), replace_file(tmp_path / name):
        pass
    with pytest.raises(FileError, match=match), own_folder(tmp_path / name):
        pass
    assert list(tmp_path.iterdir()) == []
