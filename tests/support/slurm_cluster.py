"""Slurm on this machine: a controller and one node, over the loopback interface, with files in one folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel")
START_S = 30.0
CONFIGURATION = """ClusterName=spear
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/node.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/node.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=sched_interval=1
PlugStackConfig=/dev/null
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def find_missing_programs() -> list[str]:
    """Return the programs of Slurm that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]


def search_path() -> str:
    """Return the search path with the folders of daemons."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


@contextmanager
def run_slurm(folder: Path) -> Iterator[Path]:
    """Run a cluster of one node with two processors; yields its configuration, which `SLURM_CONF` names.

    Raises:
        RuntimeError: the node is not there within `START_S` seconds; holds the logs.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    host = socket.gethostname().partition(".")[0]
    path = folder / "slurm.conf"
    user = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()
    path.write_text(CONFIGURATION.format(host=host, folder=folder, user=user, ports=_find_free_ports(2)))
    environment = {**os.environ, "SLURM_CONF": os.fspath(path), "PATH": search_path()}
    daemons = []
    try:
        for command in (["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            with open(folder / f"{command[0]}.out", "wb") as log:
                daemons.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True))
        _wait_for_node(folder, environment)
        yield path
        _wait_for_jobs(environment)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(START_S)


def _find_free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def _wait_for_jobs(environment: dict[str, str]) -> None:
    """Cancel the jobs that are left and wait for their ends: their processes would outlive the daemons."""
    subprocess.run(["scancel", "--state=PENDING"], check=False, env=environment)
    subprocess.run(["scancel", "--state=RUNNING"], check=False, env=environment)
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        done = subprocess.run(["squeue", "--noheader"], check=False, capture_output=True, text=True, env=environment)
        if not done.stdout.strip():
            return
        time.sleep(0.5)


def _wait_for_node(folder: Path, environment: dict[str, str]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        command = ["sinfo", "--noheader", "--format=%T"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        if done.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text(errors="replace")[-1000:] for path in folder.glob("*.log"))
    raise RuntimeError(f"Slurm does not start:\n{logs}")
