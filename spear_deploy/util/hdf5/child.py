"""Program that reads HDF5 files in a process with limits.

The HDF5 library loops for ever on about one in a thousand files with a flipped bit, and can allocate or crash on others. So
this program, which imports h5py and numpy and nothing of this package, forks a copy of itself that waits for files and limits
its time and memory for each. A copy ends after a damaged file, with everything that the library may have left in memory. If a
copy dies, the parent of the copies answers for it. `reader_process` is the other side of the socket:

    in   one line of JSON (limits), and three open files: the HDF5 file, one for the arrays, one for the tree that names them
    out  one line: 0, the exit status 2 (out of memory), or minus the signal that ended the copy

It runs by its path, with the folders of h5py and numpy as further arguments.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import resource
import signal
import socket
import sys
from typing import Any, NoReturn

sys.path += sys.argv[2:]

ALIGNMENT = 64
COPIED_BYTES = 4096
FRESH, OUT_OF_MEMORY, CLOSED = 10, 2, 11
"""Exit statuses of a copy: a new copy is needed, it ran out of memory, the socket was closed."""
MAX_FILES = 100
"""Files that a copy reads: the library may keep memory of each."""


class Unreadable(Exception):
    """The file holds something that is not read; the text names it and its place."""


def main() -> None:
    """Read files for the process at the other end of the socket, until it closes the socket."""
    import h5py  # noqa: F401  once, for all copies

    with socket.socket(fileno=int(sys.argv[1])) as other:
        while True:
            copy = os.fork()
            if copy == 0:
                _read_files(other)
            status = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
            if status == CLOSED:
                return
            if status != FRESH:
                other.sendall(b"%d\n" % status)


def _read_files(other: socket.socket) -> NoReturn:
    """Read files one after the other, and exit without cleaning up."""
    try:
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for _ in range(MAX_FILES):
            line, files, _, _ = socket.recv_fds(other, 1 << 16, 3)
            while line and not line.endswith(b"\n"):
                line += other.recv(1 << 16)
            if not line:
                os._exit(CLOSED)
            sound = _read_file(json.loads(line), *files)
            for file in files:
                os.close(file)
            other.sendall(b"0\n")
            if not sound:
                break
        os._exit(FRESH)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except (ConnectionError, KeyboardInterrupt):
        os._exit(CLOSED)
    finally:
        os._exit(1)


def _read_file(limits: dict[str, int], source: int, arrays: int, tree: int) -> bool:
    """Read a file within its limits, write arrays and tree, and return whether the library read it without an error."""
    _set_limits(limits["cpu_s"], limits["wall_s"], limits["working_bytes"])
    try:
        result: dict[str, Any] = {"tree": _TreeReader(limits, source, arrays).read()}
    except Unreadable as error:
        result = {"unreadable": str(error)}
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        result = {"damaged": str(error).split("\n")[0] or type(error).__name__}
    with open(tree, "wb", closefd=False) as file:
        file.write(json.dumps(result).encode())
    signal.setitimer(signal.ITIMER_REAL, 0)
    resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    return "damaged" not in result


def _set_limits(cpu_s: int, wall_s: int, more_bytes: int) -> None:
    """Limit this process to `cpu_s` of processor, `wall_s` of time, and `more_bytes` of memory beyond what it has."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(
        resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + cpu_s, resource.getrlimit(resource.RLIMIT_CPU)[1])
    )
    signal.setitimer(signal.ITIMER_REAL, wall_s)
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = now + more_bytes if most == resource.RLIM_INFINITY else min(now + more_bytes, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))


class _TreeReader:
    """Reads a file, counting entries and bytes against the limits; arrays go to the file `arrays`."""

    def __init__(self, limits: dict[str, int], source: int, arrays: int) -> None:
        self.limits, self.source, self.arrays = limits, source, arrays
        self.size = os.fstat(source).st_size
        self.entries = self.end = self.text_bytes = 0

    def read(self) -> dict[str, Any]:
        """Return the file as nested dictionaries: {"group": ...}, {"array": place}, {"text"}, {"texts"}, {"rows": place}."""
        import h5py

        name = f"/dev/fd/{self.source}"
        if not h5py.is_hdf5(name):
            raise Unreadable("is not HDF5")
        with h5py.File(name, "r") as file:
            return self._read_group(file["/"].id, "", depth=0)

    # Entries are read by h5py's lower interface: its objects take longer to make than a small array takes to read.

    def _read_group(self, group: Any, place: str, *, depth: int) -> dict[str, Any]:
        import h5py

        if depth > self.limits["depth"]:
            raise Unreadable(f"groups are nested more than {self.limits['depth']} deep; write it again")
        tree: dict[str, Any] = {}
        for stored_name in group:
            self.entries += 1
            if self.entries > self.limits["entries"]:
                raise Unreadable(f"holds more than {self.limits['entries']} entries; write it again")
            try:
                name = stored_name.decode()
            except UnicodeDecodeError:
                raise Unreadable(f"an entry is called {stored_name!r}, which is no text; rename it") from None
            path = f"{place}/{name}".lstrip("/")
            if group.links.get_info(stored_name).type != h5py.h5l.TYPE_HARD:
                raise Unreadable(f"'{path}' points to another place; write the network into one file without links")
            item = h5py.h5o.open(group, stored_name)
            if isinstance(item, h5py.h5g.GroupID):
                tree[name] = {"group": self._read_group(item, path, depth=depth + 1)}
            elif isinstance(item, h5py.h5d.DatasetID):
                tree[name] = self._read_dataset(item, path)
        return tree

    def _read_dataset(self, data: Any, place: str) -> dict[str, Any]:
        import h5py

        stored = data.get_create_plist()
        if stored.get_external_count() or stored.get_layout() == h5py.h5d.VIRTUAL:
            raise Unreadable(f"'{place}' lies in another file; write the network into one file")
        if data.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            raise Unreadable(f"'{place}' is empty; write it again")
        shape, dtype = data.shape, data.dtype
        rows = h5py.check_vlen_dtype(dtype)
        if rows is not None and len(shape) == 1:
            return self._copy_rows(h5py.Dataset(data), place, rows)
        text = h5py.check_string_dtype(dtype) is not None
        if dtype.kind not in "biufSO" or (dtype.kind == "O" and not text):
            raise Unreadable(f"'{place}' holds {dtype}, expected numbers or text")
        count = math.prod(int(n) for n in shape)
        self._check_bytes(place, count * max(1, dtype.itemsize), data.get_storage_size())
        return self._read_texts(data, place) if text else self._copy_array(data, shape, dtype)

    def _check_bytes(self, place: str, declared: int, stored: int) -> None:
        limits = self.limits
        if declared > limits["small_bytes"] and declared > limits["ratio"] * min(stored, self.size):
            raise Unreadable(f"'{place}' declares {declared} bytes and stores {stored}; write it again")
        if self.end + declared > limits["bytes"]:
            raise Unreadable(
                f"'{place}' declares {declared} bytes, a file of {self.size} bytes may hold {limits['bytes']} in all; "
                "write it with less compression"
            )

    def _copy_array(self, data: Any, shape: tuple[int, ...], dtype: Any) -> dict[str, Any]:
        import h5py
        import numpy as np

        start = -(-self.end // ALIGNMENT) * ALIGNMENT
        size = math.prod(shape) * dtype.itemsize
        if size <= COPIED_BYTES:
            os.pwrite(self.arrays, _read_all(data).tobytes(), start)
        else:
            os.ftruncate(self.arrays, start + size)
            page = start - start % mmap.ALLOCATIONGRANULARITY
            with mmap.mmap(self.arrays, start + size - page, offset=page) as memory:
                target: Any = np.frombuffer(memory, dtype, math.prod(shape), start - page).reshape(shape)
                data.read(h5py.h5s.ALL, h5py.h5s.ALL, target)
                del target
        self.end = start + size
        return {"array": [start, dtype.str, [int(n) for n in shape]]}

    def _copy_rows(self, data: Any, place: str, dtype: Any) -> dict[str, Any]:
        """Copy rows of numbers of different lengths one after the other: {"rows": place of their values, "lengths": numbers}."""
        import numpy as np

        if dtype.kind not in "biuf":
            raise Unreadable(f"'{place}' holds rows of {dtype}, expected numbers")
        self._check_bytes(place, len(data) * data.dtype.itemsize, data.id.get_storage_size())
        start = self.end = -(-self.end // ALIGNMENT) * ALIGNMENT
        lengths = []
        for number in range(len(data)):
            row = np.asarray(data[number], dtype)
            if self.end + row.nbytes > self.limits["bytes"]:
                raise Unreadable(f"'{place}' holds more than {self.limits['bytes']} bytes, too many for the file; write it again")
            os.pwrite(self.arrays, row.tobytes(), self.end)
            self.end += row.nbytes
            lengths.append(len(row))
        return {"rows": [start, dtype.str, [sum(lengths)]], "lengths": lengths}

    def _read_texts(self, data: Any, place: str) -> dict[str, Any]:
        value = _read_all(data)
        if not data.shape:
            return {"text": _text(value[()])}
        texts = [_text(item) for item in value.ravel()]
        self.text_bytes += sum(map(len, texts))
        if self.text_bytes > self.limits["bytes"]:
            raise Unreadable(f"'{place}' holds {self.text_bytes} characters; write it again")
        return {"texts": texts, "shape": [int(n) for n in data.shape]}


def _read_all(data: Any) -> Any:
    """Return the whole array."""
    import h5py
    import numpy as np

    array = np.zeros(data.shape, data.dtype)
    if array.size:
        data.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
    return array


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    main()
