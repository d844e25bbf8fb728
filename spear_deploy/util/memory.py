"""Free memory of the machine and its container.

Checked before a large allocation, since the kernel kills a process that exceeds the limit without a message.
"""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def free_bytes() -> int:
    """Return the bytes that are free in the machine and within the limit of its container."""
    return min(_machine_free_bytes(), _container_free_bytes())


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
