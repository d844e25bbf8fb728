"""Temporary folders of killed Lava runs are removed by the next run, those of others stay."""

import os
import subprocess
import sys

from spear_deploy.lava.worker_process import FOLDER, _hold, remove_leftovers


def test_folders_of_dead_processes_are_removed_and_all_others_stay(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead, held, alive, other = (
        tmp_path / f"{FOLDER}{name}" for name in (f"{process.pid}-a", f"{process.pid}-b", f"{os.getpid()}-c", "word-d")
    )
    for folder in (dead, held, alive, other):
        folder.mkdir()
        (folder / "program.npz").touch()
    with _hold(held):
        assert remove_leftovers(tmp_path) == [dead]
    assert sorted(tmp_path.iterdir()) == sorted([held, alive, other])
    assert remove_leftovers(tmp_path) == [held]


def test_a_link_to_a_folder_is_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / f"{FOLDER}999999999-a").symlink_to(tmp_path / "mine")
    assert remove_leftovers(tmp_path) == [] and (tmp_path / "mine").is_dir()
