"""Temporary folders of killed runs are removed by the next one, those of others stay."""

import os
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from spear_deploy.errors import FileError
from spear_deploy.interchange.snn_file import hash_network, write_snn
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.util.digests import hash_file
from spear_deploy.util.temporary_folder import hold, open_temporary_folder, remove_leftovers

FOLDER = "spear-lava-"


def test_folders_of_dead_processes_are_removed_and_all_others_stay(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead, held, alive, other = (
        tmp_path / f"{FOLDER}{name}" for name in (f"{process.pid}-a", f"{process.pid}-b", f"{os.getpid()}-c", "word-d")
    )
    for folder in (dead, held, alive, other):
        folder.mkdir()
        (folder / "program.npz").touch()
    with hold(held):
        assert remove_leftovers(tmp_path) == [dead]
    assert sorted(tmp_path.iterdir()) == sorted([held, alive, other])
    assert remove_leftovers(tmp_path) == [held]


def test_a_link_to_a_folder_is_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / f"{FOLDER}999999999-a").symlink_to(tmp_path / "mine")
    assert remove_leftovers(tmp_path) == [] and (tmp_path / "mine").is_dir()


def test_a_killed_process_leaves_a_folder_for_the_next_to_remove(tmp_path):
    program = (
        "import os, pathlib, signal\nfrom spear_deploy.util.temporary_folder import open_temporary_folder\n"
        f"with open_temporary_folder('verify', pathlib.Path({str(tmp_path)!r})) as folder:\n"
        "    (folder / 'file').touch()\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    with open_temporary_folder("workers", tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder] and left != folder
    assert list(tmp_path.iterdir()) == []


def test_a_network_is_hashed_without_a_file_that_a_killed_process_would_leave(tmp_path, monkeypatch):
    """The folder for temporary files stays empty while the bytes are written; they are those of the file."""
    graph = chain([Layer(name="fc", synapse=Dense(weight=np.eye(3)), neuron=IF())], input_shape=(3,))
    write_snn(graph, tmp_path / "net.snn")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    seen = []
    monkeypatch.setattr("spear_deploy.interchange.snn_file._write_array", _watch(tmp_path / "tmp", seen))
    assert hash_network(graph) == hash_file(tmp_path / "net.snn")
    assert seen and not any(seen)


def _watch(folder, seen):
    """Return a function that writes an array, and keeps what lies in a folder meanwhile."""
    from spear_deploy.interchange.snn_file import _write_array

    def write(*arguments):
        _write_array(*arguments)
        seen.append(list(folder.iterdir()))

    return write


@pytest.mark.parametrize("place", ["missing", "file"])
def test_a_folder_that_cannot_be_made_ends_in_a_sentence(place, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    sentence = rf"^folder for temporary files '{tmp_path / place}': no folder can be made \(N.*directory\); free some space there"
    with pytest.raises(FileError, match=sentence), open_temporary_folder("lava", tmp_path / place):
        pass
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / place))
    with pytest.raises(FileError, match=sentence + ", or set TMPDIR to another folder$"), open_temporary_folder("verify"):
        pass
    with pytest.raises(FileError, match=rf"^folder for temporary files '{tmp_path / place}': the network cannot be written \(N"):
        hash_network(chain([Layer(name="fc", synapse=Dense(weight=np.eye(3)), neuron=IF())], input_shape=(3,)))


def test_a_system_without_a_folder_for_temporary_files_is_named(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    sentence = r"^folder for temporary files: no folder can be made \(No usable temporary directory found in \['/nowhere'\]\)"
    with pytest.raises(FileError, match=sentence), open_temporary_folder("lava"):
        pass


def test_an_error_of_the_block_is_not_that_of_the_folder(tmp_path):
    with pytest.raises(OSError, match="^of the block$"), open_temporary_folder("lava", tmp_path):
        raise OSError("of the block")
    assert list(tmp_path.iterdir()) == []
