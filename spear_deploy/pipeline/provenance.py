"""Provenance of a deployment: command, versions, data, chip facts, digests."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from spear_deploy.hardware.profile import hash_profile
from spear_deploy.interchange.snn_file import hash_network
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline.result import write_now
from spear_deploy.pipeline.stages import Task
from spear_deploy.util.digests import hash_code, hash_file, package_versions

if TYPE_CHECKING:
    from spear_deploy.hardware.profile import HardwareProfile


def collect_provenance(
    *,
    command: str | None,
    options: Mapping[str, Any],
    network: SNNGraph,
    task: Task,
    files: Iterable[str],
) -> dict[str, Any]:
    """Return the provenance of a deployment as plain data.

    Args:
        command: the command line, None of a call from Python.
        options: of the deployment, plain data.
        network: before pruning.
        task: the deployment.
        files: names of the written files.
    """
    dataset = task.inputs.dataset
    return {
        "made": write_now(),
        "command": command,
        "options": dict(options),
        "versions": {"python": platform.python_version(), **package_versions()},
        "code": hash_code(),
        "machine": {"system": platform.system(), "processor": platform.machine(), "cpus": os.cpu_count()},
        "network": {
            "digest": hash_network(network),
            "input_shape": list(network.input_shape),
            "dt_s": network.dt_s,
            "assumptions": [str(note) for note in network.metadata.get("assumptions", [])],
        },
        "data": {
            "name": dataset.name,
            "kind": dataset.kind,
            "steps": dataset.steps,
            "classes": dataset.classes,
            "samples": {name: len(getattr(dataset, name)) for name in ("train", "val", "test")},
            "digest": task.digest,
        },
        "chip": list_chip_facts(task.inputs.profile),
        "sha256": {name: hash_file(task.folder / name) for name in sorted(files)},
    }


def list_chip_facts(profile: HardwareProfile) -> dict[str, Any]:
    """Return name, digest and all published facts of a profile as plain data."""
    from spear_deploy.hardware.profile import list_facts

    rows = list_facts(profile)
    return {
        "name": profile.name,
        "title": profile.meta.title,
        "operating_point": profile.meta.operating_point,
        "digest": hash_profile(profile),
        "facts": [
            {
                "key": row.key,
                "value": list(row.value) if isinstance(row.value, tuple) else row.value,
                "unit": row.unit,
                "evidence": row.evidence,
                "source": row.source,
            }
            for row in rows
            if row.value is not None
        ],
        "unpublished": [row.key for row in rows if row.value is None and not row.key.startswith("core_groups.")],
    }
