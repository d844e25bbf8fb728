"""How much memory may be used? Asked before something large is begun, since the kernel kills without a word."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def free_bytes() -> int:
    """Return the bytes that the machine, or the container that limits it, can still give."""
    return min(_machine(), _container())


def in_words(n_bytes: float) -> str:
    """Write bytes for people.

    >>> in_words(3 << 20), in_words(5 << 30)
    ('3 MiB', '5.0 GiB')
    """
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 1 << 30 else f"{n_bytes / 2**20:.0f} MiB"


def _machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except OSError:  # not Linux
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _container() -> int:
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # none, or an older kernel's
        return 1 << 62
    return 1 << 62 if limit == "max" else max(int(limit) - used, 0)
