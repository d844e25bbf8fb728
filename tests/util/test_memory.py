"""Free memory of machine, container and process, and reuse of freed memory."""

import contextlib
import ctypes
import os
import resource
import subprocess
import sys

import pytest

from spear_deploy.util import memory


def test_the_smaller_of_machine_and_container_limit_holds(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    machine = memory.free_bytes()  # no container
    assert machine > 1 << 20
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000\n")
    assert memory.free_bytes() > 1 << 20
    (tmp_path / "memory.max").write_text("8000\n")
    assert memory.free_bytes() == 3000
    (tmp_path / "memory.max").write_text("4000\n")
    assert memory.free_bytes() == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of a process are Linux's")
def test_a_limit_of_the_process_holds_too():
    code = "from spear_deploy.util.memory import free_bytes; print(free_bytes())"
    shell = f"ulimit -v 500000; exec {sys.executable} -c '{code}'"
    done = subprocess.run(["sh", "-c", shell], check=True, capture_output=True, text=True)
    assert 0 < int(done.stdout) < 500_000 << 10


COUNT_NEW_PAGES = """
import resource
import numpy as np
from spear_deploy.util.memory import keep_freed_memory

def count(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        np.ones(6_000_000)  # 48 MB, 11,719 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1])

outside = count(20)
with keep_freed_memory():
    first = count(1)
    again = count(20)
    held = resident()
print(outside, first, again, held - resident(), count(20))
"""


@pytest.mark.skipif(memory._find_allocator() is None, reason="another C library than glibc")
def test_large_arrays_take_the_memory_of_freed_ones_and_give_it_back_behind():
    done = subprocess.run([sys.executable, "-c", COUNT_NEW_PAGES], check=True, capture_output=True, text=True)
    outside, _, again, given_back, behind = map(int, done.stdout.split())
    assert again < outside / 10 and again < behind / 10
    assert given_back * resource.getpagesize() > 40_000_000


KEEP_IN_THREADS = """
import threading
import numpy as np
from spear_deploy.util import memory

pages = lambda: int(open("/proc/self/statm").read().split()[1])
inner, outer = threading.Event(), threading.Event()

def learn():
    with memory.keep_freed_memory():
        inner.set()
        outer.wait()

thread = threading.Thread(target=learn)
thread.start()
inner.wait()
with memory.keep_freed_memory(), memory.keep_freed_memory():
    pass
np.ones(6_000_000)
kept = pages()
memory.free_bytes()
print(kept - pages())
np.ones(6_000_000)
kept = pages()
outer.set()
thread.join()
print(kept - pages(), len(memory._KEEPERS))
"""


@pytest.mark.skipif(memory._find_allocator() is None, reason="another C library than glibc")
def test_of_nested_contexts_and_threads_the_last_gives_back_and_what_is_free_counts_freed_memory():
    done = subprocess.run([sys.executable, "-c", KEEP_IN_THREADS], check=True, capture_output=True, text=True)
    (counted,), (given_back, left) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert min(counted, given_back) * resource.getpagesize() > 40_000_000 and left == 0


@pytest.mark.skipif(memory._find_allocator() is None, reason="another C library than glibc")
def test_a_process_of_limited_address_space_gives_freed_memory_back_at_once():
    shell = f"ulimit -v 4000000; exec {sys.executable} -c '{COUNT_NEW_PAGES}'"
    done = subprocess.run(["sh", "-c", shell], check=True, capture_output=True, text=True)
    outside, _, again, *_ = map(int, done.stdout.split())
    assert again > 0.9 * outside > 0


def test_another_c_library_stays_as_it_is(monkeypatch):
    def no_library(name):
        raise OSError(name)

    memory._find_allocator.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    with memory.keep_freed_memory():
        assert memory._find_allocator() is None
    memory._find_allocator.cache_clear()


class Allocator:
    """A C library that only notes what it is asked for."""

    def __init__(self):
        self.calls = []

    def mallopt(self, parameter, value):
        self.calls.append((parameter, value))

    def malloc_trim(self, pad):
        self.calls.append(("trim", pad))


KEEP = [(-4, 0), (-1, 2**31 - 1)]
"""M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h: no array has pages of its own, and none goes back."""
GIVE_BACK = [(-4, 65536), (-3, 32 << 20), (-1, 64 << 20), ("trim", 0)]
"""The defaults of malloc.h, and the thresholds that glibc itself rises to."""


@pytest.fixture
def allocator(monkeypatch):
    fake = Allocator()
    monkeypatch.setattr(memory, "_find_allocator", lambda: fake)
    monkeypatch.setattr(memory, "_address_limit", lambda: None)
    return fake


@pytest.mark.parametrize("error", [None, ValueError])
def test_glibc_has_its_own_settings_again_behind_the_last_context(error, allocator):
    with contextlib.suppress(ValueError), memory.keep_freed_memory():
        assert allocator.calls == KEEP
        with memory.keep_freed_memory():
            assert allocator.calls == KEEP * 2
        assert allocator.calls == KEEP * 2
        if error is not None:
            raise error
    assert allocator.calls == [*KEEP * 2, *GIVE_BACK] and not memory._KEEPERS


def test_no_setting_changes_where_the_address_space_is_limited_or_the_library_is_another_one(allocator, monkeypatch):
    monkeypatch.setattr(memory, "_address_limit", lambda: 1 << 40)
    with memory.keep_freed_memory():
        assert allocator.calls == [] and not memory._KEEPERS
    monkeypatch.undo()
    monkeypatch.setattr(memory, "_find_allocator", lambda: None)
    with memory.keep_freed_memory():
        assert not memory._KEEPERS


def test_memory_is_given_back_before_it_is_counted_only_where_some_is_kept(allocator, monkeypatch):
    memory.free_bytes()
    assert allocator.calls == []
    with memory.keep_freed_memory():
        memory.free_bytes()
        assert allocator.calls == [*KEEP, ("trim", 0)]
    monkeypatch.setattr(memory, "_find_allocator", lambda: None)
    monkeypatch.setattr(memory, "_KEEPERS", {object()})
    assert memory.free_bytes() > 0


def test_a_library_that_lacks_one_of_the_functions_is_another_one(monkeypatch):
    functions = ("gnu_get_libc_version", "mallopt", "malloc_trim")
    for missing in (None, *functions):
        library = type("Library", (), {name: print for name in functions if name != missing})
        memory._find_allocator.cache_clear()
        monkeypatch.setattr(ctypes, "CDLL", lambda name, library=library: library)
        assert memory._find_allocator() is (library if missing is None else None)
    memory._find_allocator.cache_clear()


@pytest.fixture
def proc(monkeypatch, tmp_path):
    """A folder that the module takes for the root, on a machine with 10 pages of 4,096 bytes."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    monkeypatch.setattr(memory, "Path", lambda name: tmp_path / name.lstrip("/"))
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10}.__getitem__)
    return tmp_path / "proc"


def test_the_machine_has_the_memory_that_the_kernel_calls_available_or_all_of_it(proc):
    assert memory._machine_free_bytes() == 40960  # another system
    (proc / "meminfo").write_text("MemTotal:  90 kB\nMemFree:  3 kB\n")
    assert memory._machine_free_bytes() == 40960
    (proc / "meminfo").write_text("MemTotal:  90 kB\nMemFree:  3 kB\nMemAvailable:  7 kB\n")
    assert memory._machine_free_bytes() == 7 * 1024 == memory.free_bytes()


def test_a_limited_process_has_what_its_address_space_leaves(proc, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", {resource.RLIMIT_AS: (50_000, resource.RLIM_INFINITY)}.__getitem__)
    assert memory._address_limit() is None and memory._process_free_bytes() > 1 << 50  # off Linux
    (proc / "self" / "statm").write_text("5 3 2 1 0 1 0\n")
    assert memory._address_limit() == 50_000 and memory._process_free_bytes() == 50_000 - 5 * 4096
    (proc / "self" / "statm").write_text("13 3 2 1 0 1 0\n")
    assert memory._process_free_bytes() == 0
    monkeypatch.setattr(resource, "getrlimit", {resource.RLIMIT_AS: (resource.RLIM_INFINITY, 50_000)}.__getitem__)
    assert memory._address_limit() is None and memory._process_free_bytes() > 1 << 50
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory._address_limit() is None


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_a_full_memory_are_told_from_others(error, is_full):
    assert memory.is_out_of_memory(error) is is_full
