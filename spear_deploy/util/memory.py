"""Free memory of machine, container and process; errors of a full one.

Checked before a large allocation, since the kernel kills a process that exceeds the limit without a message.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


_TORCH_OUT_OF_MEMORY = re.compile("can't allocate memory|not enough memory|out of memory", re.IGNORECASE)


def free_bytes() -> int:
    """Return the bytes that are free in the machine, and within the limits of its container and of this process (`ulimit -v`)."""
    return min(_machine_free_bytes(), _container_free_bytes(), _process_free_bytes())


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is full: numpy's, or torch's of a processor or an accelerator.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."))
    True
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _TORCH_OUT_OF_MEMORY.search(str(error)) is not None
    )


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
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):  # not Linux
        return 1 << 62
    return 1 << 62 if limit == resource.RLIM_INFINITY else max(limit - used, 0)
