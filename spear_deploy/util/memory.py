"""Free memory of machine, container and process; errors of a full one; reuse of freed memory.

Checked before a large allocation, since the kernel kills a process that exceeds the limit without a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_CGROUP = Path("/sys/fs/cgroup")
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of glibc's `mallopt` (malloc.h)."""
_DEFAULT_MMAP_MAX = 65_536
_LARGEST_MMAP_THRESHOLD = 32 << 20
"""What glibc's own threshold rises to; the trim threshold is twice as much."""
_LARGEST_INT = 2**31 - 1
_KEEPERS: set[object] = set()
"""One for each `keep_freed_memory` that runs, nested or in threads."""
_TORCH_OUT_OF_MEMORY = re.compile("can't allocate memory|not enough memory|out of memory", re.IGNORECASE)


def free_bytes() -> int:
    """Return the bytes that are free in the machine, and within the limits of its container and of this process (`ulimit -v`).

    Freed memory that `keep_freed_memory` keeps is given back before.
    """
    if _KEEPERS and (allocator := _find_allocator()) is not None:
        allocator.malloc_trim(0)
    return min(_machine_free_bytes(), _container_free_bytes(), _process_free_bytes())


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is full: numpy's, or torch's of a processor or an accelerator.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."))
    True
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _TORCH_OUT_OF_MEMORY.search(str(error)) is not None
    )


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Let new arrays take the memory of freed ones within this context, however large they are; give it back at its end.

    Otherwise glibc asks the kernel for each array above 32 MB, and the kernel sets every page of it to zero. Other C libraries
    stay as they are, and so does a process whose address space is limited (`ulimit -v`): there larger arrays would lack the freed
    pieces that lie between live ones. Contexts may be nested, and run in several threads: the last one gives back.
    """
    allocator = _find_allocator()
    if allocator is None or _address_limit() is not None:
        yield
        return
    keeper = object()
    _KEEPERS.add(keeper)
    allocator.mallopt(_MMAP_MAX, 0)
    allocator.mallopt(_TRIM_THRESHOLD, _LARGEST_INT)
    try:
        yield
    finally:
        _KEEPERS.discard(keeper)
        if not _KEEPERS:
            allocator.mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)
            allocator.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
            allocator.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)
            allocator.malloc_trim(0)


@cache
def _find_allocator() -> Any:
    """Return the C library of this process where it is glibc, else None."""
    import ctypes

    try:
        library = ctypes.CDLL(None)
        return library if library.gnu_get_libc_version and library.mallopt and library.malloc_trim else None
    except (AttributeError, OSError, TypeError):
        return None


def _machine_free_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except OSError:  # not Linux
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _container_free_bytes() -> int:
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no cgroup v2
        return 1 << 62
    return 1 << 62 if limit == "max" else max(int(limit) - used, 0)


def _process_free_bytes() -> int:
    limit = _address_limit()
    if limit is None:
        return 1 << 62
    return max(limit - int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE"), 0)


def _address_limit() -> int | None:
    """Return the bytes of address space that this process may have (`ulimit -v`); None without a limit, or off Linux."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    except ImportError:
        return None
    return None if limit == resource.RLIM_INFINITY or not Path("/proc/self/statm").exists() else limit
