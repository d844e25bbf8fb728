"""Damaged files to every reader: sentences of ours or results, nothing else, within bounds of time and memory.

    python -m tests.reliability.fuzz --cases 1000000             # over all readers, in blocks
    python -m tests.reliability.fuzz --only checkpoint --cases 2000

The files of 0.1.0 in `tests/data/corpus_0.1.0`, and some written here, are cut, their bits, sizes and numbers changed, or parts
of them repeated; in archives also a member behind a right checksum. Each block runs in a separate process, so that a crash is
seen.
"""

from __future__ import annotations

import io
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import spear_deploy as sd
from spear_deploy.errors import SpearError
from tests.reliability.campaign import options, run_blocks
from tests.support.fuzz_reader import damaged, repacked

CORPUS = Path(__file__).parents[1] / "data" / "corpus_0.1.0"
DEPLOYMENT = CORPUS / "deployment"
MAX_S, MAX_BYTES = 5.0, 500 << 20
"""Longest case in processor time, and growth of a process over a block."""
SHARES = {
    "snn": 24, "input": 12, "activity": 8, "data": 8, "xylo": 8, "speck": 8, "checkpoint": 8, "stages": 8, "project": 8,
    "profile": 2, "report": 2, "onnx": 2, "nir": 1, "netx": 1, "shd": 1,
}  # fmt: skip
"""Readers, and how many hundredths of the cases each gets: an HDF5 file is read by a process of its own, which costs more."""
BLOCK = {"profile": 200, "report": 200, "onnx": 200, "nir": 50, "netx": 50, "shd": 50}
"""Cases of a block, where a case is slow; else 1,000."""


def prepare(reader: str, folder: Path) -> tuple[list[bytes], str, Callable[[Path], Any]]:
    """Return sound files, the name that a damaged one gets, and the reader."""
    from spear_deploy.pipeline import api

    graph = sd.load(DEPLOYMENT / "quantised.snn")
    spikes = np.random.default_rng(0).random((4, 2, *graph.input_shape)) < 0.4
    if reader == "snn":
        files = [(CORPUS / "digits.snn").read_bytes(), *(path.read_bytes() for path in sorted(DEPLOYMENT.glob("*.snn")))]
        return files, "a.snn", api.load
    if reader in ("input", "activity"):
        from spear_deploy.simulator.recordings import read_activity, read_input, write_recording

        np.savez(folder / "in.npz", spikes=spikes)
        write_recording(folder / "run.npz", sd.simulate(graph, spikes, record=("spikes",)), spikes)
        name, read = ("in.npz", read_input) if reader == "input" else ("run.npz", read_activity)
        return [(folder / name).read_bytes()], "a.npz", lambda path: read(path, graph)
    if reader == "data":
        x = np.random.default_rng(0).random((40, 4, *graph.input_shape)) < 0.4
        np.savez(folder / "a.npz", x=x.astype(np.uint8), y=np.arange(40) % 2)
        return [(folder / "a.npz").read_bytes()], "a.npz", lambda path: api.data(path, graph)
    if reader in ("xylo", "speck", "nir", "netx"):
        return _exported(reader, folder)
    if reader == "onnx":
        from spear_deploy.interchange.onnx.model_file import run_onnx

        return [(DEPLOYMENT / "onnx" / "network.onnx").read_bytes()], "a.onnx", lambda path: run_onnx(path, spikes)
    if reader == "shd":
        from spear_deploy.data import load_data

        return [_write_shd(folder / "a.h5").read_bytes()], "a.h5", lambda path: load_data(path, steps=4)
    return _plain(reader, folder)


def _plain(reader: str, folder: Path) -> tuple[list[bytes], str, Callable[[Path], Any]]:
    """Return the files that are text: checkpoint, stages, project file, profile, folder of a deployment."""
    if reader == "checkpoint":
        from spear_deploy.pruning.candidates import Checkpoint

        content = (CORPUS / "checkpoint.json").read_bytes()
        return [content], "checkpoint.json", lambda path: Checkpoint(path, json.loads(content)["of"])
    if reader == "stages":
        from spear_deploy.pipeline.stage_cache import read_stages

        return [(DEPLOYMENT / "stages.json").read_bytes()], "stages.json", read_stages
    if reader == "project":
        from spear_deploy.budget.budget_file import read_budget

        return [(CORPUS / "spear.toml").read_bytes()], "spear.toml", read_budget
    if reader == "profile":
        from spear_deploy.hardware.profile import load_profile

        return [(CORPUS / "chip.yaml").read_bytes()], "chip.yaml", load_profile
    from spear_deploy.report import write_report

    shutil.copytree(DEPLOYMENT, folder / "out")
    names = ("deployment.json", "check.json", "cores.json", "layers.json", "search.json", "provenance.json")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.write(DEPLOYMENT / name, name)

    def read(path: Path) -> Any:
        """Put the files of a deployment in place and write its page."""
        try:
            archive = zipfile.ZipFile(path)
            content = {name: archive.read(name) for name in names if name in archive.namelist()}
        except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.LargeZipFile):
            return None  # the archive is ours, not a file of the program
        for name, text in content.items():
            (folder / "out" / name).write_bytes(text)
        return write_report(folder / "out")

    return [packed.getvalue()], "a.zip", read


def _exported(reader: str, folder: Path) -> tuple[list[bytes], str, Callable[[Path], Any]]:
    """Return files for other tools, written here."""
    from tests.reliability.wild import random_chain

    seeds = {"xylo": 14, "speck": 19, "nir": 4, "netx": 9}
    suffix = {"xylo": "npz", "speck": "json", "nir": "nir", "netx": "net"}[reader]
    sd.export(random_chain(seeds[reader]), folder / f"b.{suffix}", to=reader)
    if reader == "xylo":
        from spear_deploy.interchange.xylo.reader import read_xylo as read
    elif reader == "speck":
        from spear_deploy.interchange.speck.reader import read_speck as read
    else:
        read = sd.load
    return [(folder / f"b.{suffix}").read_bytes()], f"a.{suffix}", read


def _write_shd(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        rows = h5py.vlen_dtype(np.float32), h5py.vlen_dtype(np.int64)
        for name, kind, values in (("times", rows[0], [0.1, 0.2]), ("units", rows[1], [1, 0])):
            stored = file.create_dataset(f"spikes/{name}", (20,), kind)
            for n in range(20):
                stored[n] = values
        file["labels"] = np.arange(20) % 2
    return path


def run_cases(reader: str, first: int, count: int) -> dict[str, Any]:
    """Read damaged files of the seeds from `first` on, and return the counts."""
    result: dict[str, Any] = {"cases": count, "read": 0, "refused": 0, "slowest_s": 0.0, "wrong": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, target, read = prepare(reader, folder)
        path = folder / target
        for content in files:
            path.write_bytes(content)
            read(path)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for seed in range(first, first + count):
            content = files[seed % len(files)]
            deep = reader == "report" or (content[:2] == b"PK" and seed // len(files) % 2 == 1)
            path.write_bytes(_repack(content, seed) if deep else damaged(content, seed))
            start = time.process_time()
            try:
                read(path)
                result["read"] += 1
            except SpearError as error:
                result["refused"] += 1
                if "\n" in str(error):
                    result["wrong"].append(f"{reader} {seed}: two lines: {error}")
            except Exception as error:
                result["wrong"].append(f"{reader} {seed}: {type(error).__name__}: {str(error)[:200]}")
            result["slowest_s"] = max(result["slowest_s"], round(time.process_time() - start, 3))
    result["grown_mb"] = round(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6, 1)
    if result["slowest_s"] > MAX_S or result["grown_mb"] > MAX_BYTES / 1e6:
        result["wrong"].append(f"{reader} {first}: {result['slowest_s']} s, {result['grown_mb']} MB")
    return result


def _repack(content: bytes, seed: int) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
    if "header.npy" in names:
        return repacked(content, seed)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in names}
    name = names[seed // 7 % len(names)]
    members[name] = damaged(members[name], seed)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return written.getvalue()


def run_block(block: str) -> dict[str, Any]:
    """Run a block in a process of its own."""
    reader, number = block.split()
    count = BLOCK.get(reader, 1000)
    call = f"run_cases({reader!r}, {int(number) * count}, {count})"
    code = f"import json; from tests.reliability.fuzz import run_cases; print(json.dumps({call}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"cases": count, "read": 0, "refused": 0, "wrong": [f"{block}: exit {done.returncode}: {done.stderr[-300:]}"]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Run all blocks of a number of cases."""
    parser = options(__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--only", choices=SHARES, help="one reader, which then gets all cases")
    arguments = parser.parse_args()
    shares = {arguments.only: 100} if arguments.only else SHARES
    counts = {
        name: -(-arguments.cases * share // sum(shares.values()) // BLOCK.get(name, 1000)) for name, share in shares.items()
    }
    blocks = [(number, f"{name} {number:05d}") for name, count in counts.items() for number in range(count)]
    order = sorted(blocks, key=lambda pair: (pair[0] / counts[pair[1].split()[0]], pair[1]))  # all readers in turn
    run_blocks("fuzz", [name for _, name in order], run_block, record=arguments.record)


if __name__ == "__main__":
    main()
