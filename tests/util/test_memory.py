"""Free memory of machine and container."""

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
