"""HDF5 files: read whole, within limits of time and memory."""

import base64
import os
import signal
import subprocess
import sys
import threading
import time
import zlib

import h5py
import numpy as np
import pytest

from spear_deploy.errors import FileError
from spear_deploy.util.hdf5 import reader_process
from spear_deploy.util.hdf5 import tree as hdf5_tree
from spear_deploy.util.hdf5.tree import decode_integers, decode_text, max_array_bytes, read_tree
from tests.support.hdf5_damage import small_netx


def file_of(path, **fields):
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            file[name] = value
    return path


ARRAYS = [
    (np.arange(12) % 3).reshape(3, 4).astype(dtype)
    for dtype in (np.int8, np.uint16, np.int32, np.int64, np.float16, np.float32, np.float64, ">f4", ">i8", bool)
]


@pytest.mark.parametrize("array", [*ARRAYS, np.float32(2.5), np.zeros((0, 3)), np.zeros((2, 0)), np.ones(200_000, np.int8)])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"chunks": True}])
def test_arrays_come_as_they_are(array, options, tmp_path):
    array = np.asarray(array)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("group/array", data=array, **(options if array.size and array.ndim else {}))
        file["after"] = np.arange(5)
    tree = read_tree(tmp_path / "a.h5", "file")
    outcome = tree["group"]["array"]
    assert outcome.dtype == array.dtype and outcome.shape == array.shape and np.array_equal(outcome, array)
    assert np.array_equal(tree["after"], np.arange(5)) and not tree["after"].flags.writeable


def test_text_comes_as_text(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["long"] = "größer als"
        file.create_dataset("fixed", (2,), "S10", [b"dense", b"conv"])
        file["table"] = np.array([["a", "b"], ["c", ""]], h5py.string_dtype())
        file["broken"] = np.bytes_(b"\xff\xfe")
        file.create_group("empty/group")
    tree = read_tree(tmp_path / "a.h5", "file")
    assert tree["long"] == "größer als" and tree["fixed"].tolist() == ["dense", "conv"]
    assert tree["table"].tolist() == [["a", "b"], ["c", ""]] and tree["broken"] == "��" and tree["empty"] == {"group": {}}


def test_links_external_data_and_foreign_types_raise(tmp_path):
    path = tmp_path / "a.h5"
    other = file_of(tmp_path / "b.h5", x=np.arange(3))
    for make, match in (
        (lambda file: file.update({"here": h5py.SoftLink("/x")}), "'here' points to another place"),
        (lambda file: file.update({"here": h5py.ExternalLink(str(other), "/x")}), "'here' points to another place"),
        (lambda file: file.create_dataset("x", (9,), "i8", external=[(str(other), 0, 72)]), "'x' lies in another file"),
        (lambda file: file.update({"x": h5py.Empty("f4")}), "'x' is empty"),
        (lambda file: file.update({"x": np.zeros(2, [("a", int)])}), "'x' holds .*, expected numbers or text"),
        (lambda file: file.update({"x": np.zeros(2, complex)}), "'x' holds complex128, expected numbers or text"),
        (lambda file: file.create_group("/".join("g" * 40)), "groups are nested more than 32 deep"),
        (lambda file: file.create_dataset("x", (10**11,), "f8"), "'x' declares 800000000000 bytes and stores 0"),
    ):
        with h5py.File(path, "w") as file:
            make(file)
        with pytest.raises(FileError, match=match) as caught:
            read_tree(path, "netx file")
        assert str(caught.value).startswith(f"file '{path}': ")


def test_files_that_are_not_hdf5_raise(tmp_path):
    for name, data, match in (
        ("a", b"not HDF5 at all", "is not HDF5, a netx file is; check that the file is complete"),
        ("b", b"\x89HDF\r\n\x1a\n", "is damaged"),
        ("c", b"", "is empty, expected a netx file"),
        ("d", small_netx()[:3000], "is damaged"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FileError, match=f"file '.*{name}': {match}"):
            read_tree(tmp_path / name, "netx file")
    with pytest.raises(FileError, match="there is no such netx file"):
        read_tree(tmp_path / "e", "netx file")


def test_too_many_entries_or_levels_raise(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_tree, "MAX_ENTRIES", 2)
    with pytest.raises(FileError, match="holds more than 2 entries"):
        read_tree(file_of(tmp_path / "a.h5", a=1, b=2, c=3), "file")


# --------------------------------------------------------------------------------------------------- time and memory


def child_memory_kib():
    """Return the largest memory that the reading process has had, and its copies before it."""
    (reader,) = reader_process._readers
    copies = subprocess.run(["ps", "--ppid", str(reader.process.pid), "-o", "pid="], capture_output=True, text=True, check=True)
    peaks = []
    for pid in (reader.process.pid, *map(int, copies.stdout.split())):
        with open(f"/proc/{pid}/status") as status:
            peaks.append(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")))
    return max(peaks)


def bomb(path, megabytes, chunk=1 << 20, arrays=1):
    """Write arrays of zeros, by putting one compressed chunk into each place."""
    packed = zlib.compress(bytes(chunk), 4)
    with h5py.File(path, "w") as file:
        for n in range(arrays):
            data = file.create_dataset(f"x{n}", (megabytes << 18,), "f4", compression="gzip", chunks=(chunk // 4,))
            for start in range(0, megabytes << 18, chunk // 4):
                data.id.write_direct_chunk((start,), packed)
    return path


def test_a_file_of_zeros_takes_no_more_memory_than_its_size_allows(tmp_path):
    """1 GiB of zeros in 1 MB: the bound is 64 MiB + 100 bytes for each byte of the file, and it is not even tried."""
    path = bomb(tmp_path / "a.h5", 1024)
    size = path.stat().st_size
    assert size < 2 << 20 and max_array_bytes(size) == (64 << 20) + 100 * size < 1 << 30
    read_tree(file_of(tmp_path / "b.h5", a=1), "file")
    before = child_memory_kib()
    with pytest.raises(FileError, match="'x0' declares 1073741824 bytes, a file of .* bytes may hold"):
        read_tree(path, "file")
    assert child_memory_kib() - before < 20 << 10


def test_many_arrays_together_are_bounded(tmp_path):
    """Each is small enough, all are not."""
    path = bomb(tmp_path / "a.h5", 4, arrays=100)
    with pytest.raises(FileError, match="'x.*' declares 4194304 bytes, a file of .* bytes may hold"):
        read_tree(path, "file")


def test_work_beyond_the_bound_is_stopped(tmp_path, monkeypatch):
    """One chunk of 48 MiB needs a buffer of that size; where that is not allowed, the file is refused."""
    path = bomb(tmp_path / "a.h5", 48, chunk=48 << 20)
    assert read_tree(path, "file")["x0"].nbytes == 48 << 20
    monkeypatch.setattr(hdf5_tree, "FREE_BYTES", 1 << 20)
    monkeypatch.setattr(hdf5_tree, "max_array_bytes", lambda _: 50 << 20)
    monkeypatch.setattr(hdf5_tree, "WORKING_FACTOR", 1)
    with pytest.raises(FileError, match="is damaged"):
        read_tree(path, "file")
    assert read_tree(file_of(tmp_path / "b.h5", a=1), "file") == {"a": 1}


def test_arrays_are_shared_not_copied(tmp_path):
    """40 MB arrive as memory of a file without a name: little of it is this process' own."""
    path = file_of(tmp_path / "a.h5", x=np.ones(10_000_000, np.float32))

    def own_kib():
        with open("/proc/self/smaps_rollup") as rollup:
            return next(int(line.split()[1]) for line in rollup if line.startswith("Pss_Anon"))

    read_tree(path, "file")
    before = own_kib()
    tree = read_tree(path, "file")
    assert tree["x"].sum() == 1e7 and own_kib() - before < 8 << 10


def test_a_file_on_which_the_library_hangs_is_named(tmp_path, monkeypatch):
    """Found among flipped bits: about one in a thousand makes libhdf5 loop for ever."""
    monkeypatch.setattr(hdf5_tree, "MIN_CPU_S", 1)
    path = tmp_path / "a.h5"
    path.write_bytes(hanging())
    start = time.monotonic()
    with pytest.raises(FileError, match="is damaged"):  # with libhdf5 1.14: reading it takes more than 1 s
        read_tree(path, "file")
    assert time.monotonic() - start < 20
    assert read_tree(file_of(tmp_path / "b.h5", a=1), "file") == {"a": 1}  # and the next one is read


HANGS = (
    "c-rgqaB<`1lHy_j0S*oZ76t(ZWbhvfR!E`pVe$!3nh{EOK<O1sFmXn(oCH){5NbZUx{x4OSCH!eXaHu91q*~mb=@c!DZs<kF#tqIK>4urbb<+0T_TiDM@y"
    "FuWZKKfzzQ*g5yt00F_#&bB0+2cpfCrLO{_p3NSuj@39OU@>SAU_187R-K(lGVkcbDEzk~h!T^Jdd;J#2`#;*^SZx@K6nsWlme<3k4(>3ArB>`qjGBSe0"
    "PyjB+ftJn~(9+oiHtZ$lj6oe9pv<v=4UtCNo&9|nk-Wi3K>rQ?(Xw(BjDk@x3P!;w7zLwX6pVsVFbYP&C>Ux0*Z48|xDlc8;{-_v%`qCJBNCvGAHzn)I3"
    "!WkCBf4jR3C-*LdHoM;pwh{bu=!>0RV)(Oke"
)
"""A file of 7 KB with two entries and a block of 64 bytes in the wrong place: libhdf5 1.14 looks for ever for its names."""


def hanging() -> bytes:
    return zlib.decompress(base64.b85decode(HANGS))


def test_waiting_is_bounded_too(tmp_path, monkeypatch):
    """Where a disk or a machine is stuck no processor time passes."""
    path = file_of(tmp_path / "a.h5", a=1)
    monkeypatch.setattr(hdf5_tree, "WALL_PER_CPU", 1e-6)  # some microseconds, in which no file is read
    with pytest.raises(FileError, match="is damaged .reading it takes more than"):
        read_tree(path, "file")


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (reader_process.OUT_OF_MEMORY, "it asks for more than the 99 bytes that a file of its size may"),
        (-signal.SIGXCPU, "reading it takes more than 7 s"),
        (-signal.SIGALRM, "reading it takes more than 7 s"),
        (-signal.SIGSEGV, "the library that reads HDF5 crashes on it"),
    ],
)
def test_the_error_names_how_reading_ended(ended, words, tmp_path, monkeypatch):
    path = file_of(tmp_path / "a.h5", a=1)
    reply = reader_process.Reply(exit_status=ended, arrays=os.open(path, os.O_RDONLY), result={})
    monkeypatch.setattr(reader_process, "read_in_process", lambda source, limits: reply)
    monkeypatch.setattr(hdf5_tree, "WORKING_FACTOR", 0)
    monkeypatch.setattr(hdf5_tree, "FREE_BYTES", 99)
    monkeypatch.setattr(hdf5_tree, "MIN_CPU_S", 7)
    with pytest.raises(FileError, match=f"is damaged .{words}.; write it again"):
        read_tree(path, "file")


def test_names_that_are_no_text_raise(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        h5py.h5g.create(file.id, b"odd\xff")
    with pytest.raises(FileError, match=r"an entry is called b'odd.xff', which is no text; rename it"):
        read_tree(tmp_path / "a.h5", "file")


# ------------------------------------------------------------------------------------------------- the other process


def test_one_process_reads_many_files(tmp_path):
    path = file_of(tmp_path / "a.h5", a=1)
    read_tree(path, "file")
    process = reader_process._readers[0].process.pid
    for _ in range(150):
        assert read_tree(path, "file") == {"a": 1}
    assert reader_process._readers[0].process.pid == process


def test_it_is_started_again_when_it_is_gone(tmp_path):
    path = file_of(tmp_path / "a.h5", a=1)
    read_tree(path, "file")
    gone = reader_process._readers[0].process
    os.killpg(gone.pid, signal.SIGKILL)
    gone.wait()
    assert read_tree(path, "file") == {"a": 1}
    reader_process.stop()
    assert read_tree(path, "file") == {"a": 1}


def test_threads_and_forks_get_their_own_answers(tmp_path):
    paths = [file_of(tmp_path / f"{n}.h5", a=n) for n in range(6)]
    wrong = []

    def read(n):
        for _ in range(5):
            if read_tree(paths[n], "file") != {"a": n}:
                wrong.append(n)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    code = (
        "import os, sys\nfrom spear_deploy.util.hdf5.tree import read_tree\n"
        "assert read_tree(sys.argv[1], 'file') == {'a': 0}\n"
        "child = os.fork()\n"
        "assert read_tree(sys.argv[2 if child else 3], 'file') == {'a': 1 if child else 2}\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *paths[:3]], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_is_left_behind(tmp_path):
    """When the reader ends, by itself or killed, so does the process that read for it."""
    path = file_of(tmp_path / "a.h5", a=1)
    code = (
        "import sys, time\nfrom spear_deploy.util.hdf5 import reader_process, tree\n"
        "tree.read_tree(sys.argv[1], 'file')\nprint(reader_process._readers[0].process.pid, flush=True)\n"
        "time.sleep(float(sys.argv[2]))\n"
    )
    for wait, kill in (("0", False), ("60", True)):
        process = subprocess.Popen([sys.executable, "-c", code, path, wait], stdout=subprocess.PIPE, text=True)
        reader = int(process.stdout.readline())
        if kill:
            process.kill()
        process.wait(timeout=30)
        process.stdout.close()
        end = time.monotonic() + 10
        while os.path.exists(f"/proc/{reader}") and time.monotonic() < end:
            time.sleep(0.02)
        assert not os.path.exists(f"/proc/{reader}")


def test_a_reader_that_cannot_be_started_raises(tmp_path, monkeypatch):
    path = file_of(tmp_path / "a.h5", a=1)
    reader_process.stop()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(FileError, match="the process that reads HDF5 cannot be started"):
        read_tree(path, "file")
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(FileError, match="the process that reads HDF5 does not answer; check that h5py can be imported"):
        read_tree(path, "file")
    monkeypatch.undo()
    assert read_tree(path, "file") == {"a": 1}
    reader_process.stop()
    monkeypatch.setattr(reader_process, "PACKAGES", ("no_such_package",))
    with pytest.raises(FileError, match="package 'no_such_package' is missing; install it"):
        read_tree(path, "file")


def test_a_file_that_cannot_be_opened_raises(tmp_path, monkeypatch):
    path = file_of(tmp_path / "a.h5", a=1)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reader_process, "read_in_process", refuse)
    with pytest.raises(FileError, match="cannot be read .Permission denied.; check its name and place"):
        read_tree(path, "file")


# ------------------------------------------------------------------------------------------------------------- values


def test_text_and_integers_decode_from_any_stored_form():
    assert decode_text(np.array(["a"], object)) == "a" and decode_text("b") == "b" and decode_text(np.array([1])) is None
    assert decode_integers(np.array([2.0, 3.0])) == (2, 3) and decode_integers(np.array(4)) == (4,)
    assert decode_integers(np.array([0.5])) is None and decode_integers("2") is None and decode_integers(np.array([1e12])) is None
