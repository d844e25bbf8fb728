"""Free memory of machine, container and process, and reuse of freed memory."""

import ctypes
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
