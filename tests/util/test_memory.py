"""Free memory of machine, container and process."""

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
