"""A folder belongs to one run; what killed runs left is removed."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from spear_deploy.errors import FileError
from spear_deploy.util import folder_lock
from spear_deploy.util.files import replace_file
from spear_deploy.util.folder_lock import LOCK, own_folder, require_kept, sweep

HOLD = """import sys
from spear_deploy.util.folder_lock import own_folder
with own_folder(sys.argv[1]):
    print("held", flush=True)
    input()
"""


def hold(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_learns_who_holds_the_folder(tmp_path):
    process = hold(tmp_path)
    with pytest.raises(
        FileError, match=rf"folder '.*': process {process.pid} \(-c .*\) is writing there; wait until it ends, or choose"
    ):
        with own_folder(tmp_path):
            raise AssertionError("held by two")
    process.communicate("\n", timeout=30)
    with own_folder(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_neither_a_folder_nor_a_lock(tmp_path, monkeypatch):
    def fill(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fill)
        with pytest.raises(FileError, match="cannot be written .No space left on device.; free some space, and run the command"):
            with own_folder(tmp_path / "a" / "b"):
                raise AssertionError("the lock was not written")
    assert os.listdir(tmp_path) == []
    with own_folder(tmp_path / "a" / "b"):  # by the same process, once there is space
        pass


def test_a_killed_run_holds_nothing(tmp_path):
    process = hold(tmp_path)
    process.kill()
    process.wait()
    assert os.listdir(tmp_path) == [LOCK]
    with own_folder(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_one_process_does_not_hold_a_folder_twice(tmp_path):
    with own_folder(tmp_path), pytest.raises(FileError, match=f"process {os.getpid()} "), own_folder(tmp_path):
        raise AssertionError("held twice")


def test_a_lock_without_words_is_of_another_run(tmp_path):
    with open(tmp_path / LOCK, "w") as file:
        file.write("{")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(FileError, match="another run is writing there"), own_folder(tmp_path):
            raise AssertionError("held twice")


def test_leftovers_of_killed_runs_are_removed_and_other_files_stay(tmp_path):
    (tmp_path / "nir").mkdir()
    for name in (".spear-aside-a.json.x1.json", "nir/.spear-aside-network.nir.x2.nir", ".mine", "nir/mine", ".lock"):
        (tmp_path / name).touch()
    with own_folder(tmp_path):
        assert sweep(tmp_path) == []  # done on entry
    assert sorted(os.listdir(tmp_path)) == [".lock", ".mine", "nir"] and os.listdir(tmp_path / "nir") == ["mine"]


def test_temporary_folders_of_killed_runs_are_removed_too(tmp_path, monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, alive = (tmp_path / f"spear-workers-{pid}-a" for pid in (process.pid, os.getpid()))
    left.mkdir()
    alive.mkdir()
    with own_folder(tmp_path / "out"):
        assert not left.exists() and alive.exists()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "none"))
    with own_folder(tmp_path / "out"):
        pass


def test_a_killed_write_leaves_what_the_sweep_knows(tmp_path):
    with pytest.raises(KeyboardInterrupt), replace_file(tmp_path / "a.json") as aside:
        (tmp_path / "kept").write_bytes(aside.name.encode())
        raise KeyboardInterrupt
    (tmp_path / (tmp_path / "kept").read_text()).touch()
    assert [path.name for path in sweep(tmp_path)] == [(tmp_path / "kept").read_text()]


def test_a_new_folder_is_removed_where_nothing_was_written(tmp_path):
    with pytest.raises(ValueError, match="early"), own_folder(tmp_path / "a" / "b"):
        raise ValueError("early")
    assert os.listdir(tmp_path) == []


def test_a_folder_without_a_name_or_below_a_file_is_refused(tmp_path):
    with pytest.raises(FileError, match="folder '': an output folder has a name; give one, or '.' for the current folder"):
        with own_folder(""):
            raise AssertionError("a folder without a name")
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot be written .*; choose a writable place"), own_folder(tmp_path / "file" / "x"):
        raise AssertionError("a folder below a file")


@pytest.mark.parametrize("number", folder_lock.NO_LOCKS)
def test_a_file_system_without_locks_is_used_without_one(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folder_lock.fcntl, "flock", refuse)
    with own_folder(tmp_path) as folder:
        assert folder == tmp_path
    monkeypatch.setattr(folder_lock, "NO_LOCKS", ())
    with pytest.raises(FileError, match="cannot be written"), own_folder(tmp_path):
        raise AssertionError("an error of the lock was hidden")


def test_an_input_that_a_result_would_replace_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "50").mkdir(parents=True)
    for name in ("pruned.snn", "50/pruned.snn", "net.snn"):
        (tmp_path / "out" / name).write_text(name)
    (tmp_path / "same.snn").symlink_to("out/pruned.snn")
    results = ["pruned.snn", "50/pruned.snn"]
    for given in ("out/pruned.snn", tmp_path / "out" / "pruned.snn", "same.snn", "out/50/pruned.snn"):
        with pytest.raises(
            FileError, match=f"file '{given}': is read, and the result '.*pruned.snn' in folder 'out' would replace"
        ):
            require_kept("out", results, "digits", given)
    require_kept("out", results, "out/net.snn", "digits", None, np.zeros(2), "mymodule:net")
    require_kept("elsewhere", results, "out/pruned.snn")
