"""Damaged files to every reader: sentences of ours or results, nothing else, within bounds of time and memory.

    python -m tests.reliability.fuzz                             # a million over all readers, in blocks
    python -m tests.reliability.fuzz --only checkpoint --cases 2000

The files of 0.1.0 in `tests/data/corpus_0.1.0`, and some written here, are damaged in two ways in turn: their bytes (cut, bits,
sizes and numbers changed, parts repeated), and what they hold (values of JSON, lines of TOML and YAML, arrays, data sets), with a
sound container around it. Files lie in memory. A block runs in a process of its own, and each case within a limit of processor
time; a case that ends the process is recorded, and the block goes on behind it.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import spear_deploy as sd
from spear_deploy.errors import SpearError
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import LIF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.pipeline import api
from spear_deploy.util.hdf5 import reader_process
from tests.reliability.campaign import options, run_blocks
from tests.reliability.wild import random_chain, random_network
from tests.support.damage import damaged_archive, damaged_json, damaged_lines, damaged_tree
from tests.support.fuzz_reader import damaged

CORPUS = Path(__file__).parents[1] / "data" / "corpus_0.1.0"
DEPLOYMENT = CORPUS / "deployment"
MEMORY = Path("/dev/shm")
MAX_S, MAX_BYTES = 5, 500 << 20
"""Longest case in processor time, and growth of a process over a block."""
ADDRESS_BYTES = 8 << 30
"""Address space of a block, so that a file that asks for all memory takes none from others."""
SHARES = {
    "snn": 100, "pynn": 40, "input": 80, "activity": 60, "data": 70, "xylo": 60, "speck": 100, "checkpoint": 80, "stages": 60,
    "project": 80, "sweep": 50, "idx": 20, "cifar": 20, "nmnist": 20, "aedat": 20, "profile": 20, "report": 20, "verify": 20,
    "onnx": 20, "nir": 20, "netx": 20, "shd": 20,
}  # fmt: skip
"""Readers, and how many thousandths of the cases each gets; a process of its own reads HDF5, which costs more."""
SLOW = ("profile", "report", "verify", "onnx", "nir", "netx", "shd")
HDF5 = ("nir", "netx", "shd")
STATE = struct.Struct("<QQQd")
TEXT = {"checkpoint": "json", "stages": "json", "speck": "json", "project": "toml", "sweep": "toml", "profile": "yaml"}
FOLDER_JSON = ("deployment.json", "check.json", "cores.json", "layers.json", "search.json", "provenance.json", "stages.json")
PROJECT = """chip = "loihi2"
chips = 2
activity = 0.05
[budget]
max_cores = 60
synops = 50_000
energy_uj = 20.0
latency_ms = 5.0
[network]
source = "snntorch"
dt_s = 1e-4
reset = "subtract"
input_shape = [1, 28, 28]
[data]
steps = 16
encoding = "rate"
[set]
"energy.synop_pj" = 23.6
"""
SWEEP = """networks = ["a.snn", "b.nir"]
chips = ["loihi2", "speck2f"]
budgets = ["50%", 1000, 2.5e4]
methods = ["uniform", "evolution"]
seeds = [0, 1, 2]
data = "data.npz"
episodes = 12
epochs = 2
steps = 8
encoding = "rate"
"""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A reader and its files.

    Attributes:
        files: sound ones.
        name: that a damaged file gets.
        read: the reader.
        sets: names of the data sets of each HDF5 file.
    """

    files: list[bytes]
    name: str
    read: Callable[[Path], Any]
    sets: list[list[str]] = field(default_factory=list)


def prepare(reader: str, folder: Path, seed: int = 0) -> Target:
    """Return the reader, and files that differ from seed to seed where they are written here."""
    graph, rng = sd.load(DEPLOYMENT / "quantised.snn"), np.random.default_rng(seed)
    spikes = rng.random((int(rng.integers(1, 6)), 2, *graph.input_shape)) < 0.4
    if reader == "snn":
        write_snn(random_network(seed)[0], folder / "a.snn")
        paths = [CORPUS / "digits.snn", *sorted(DEPLOYMENT.glob("*.snn")), folder / "a.snn"]
        return Target(files=[path.read_bytes() for path in paths], name="a.snn", read=api.load)
    if reader in ("input", "activity"):
        from spear_deploy.simulator.recordings import read_activity, read_input, write_recording

        np.savez(folder / "spikes.npz", spikes=spikes.astype(rng.choice(["?", "u1", "i8", "f4"])), y=np.arange(2))
        np.savez(folder / "current.npz", current=rng.normal(size=spikes.shape))
        write_recording(folder / "run.npz", sd.simulate(graph, spikes, record=("spikes",)), spikes)
        names = ("spikes.npz", "current.npz") if reader == "input" else ("run.npz",)
        read = read_input if reader == "input" else read_activity
        return Target(files=_read_all(folder, *names), name="a.npz", read=lambda path: read(path, graph))
    if reader == "data":
        x = (rng.random((40, 4, *graph.input_shape)) < 0.4).astype(np.uint8)
        np.savez(folder / "a.npz", x=x, y=np.arange(40) % 2, split=np.repeat(["train", "val", "test"], [20, 10, 10]))
        np.savez(folder / "b.npz", x_train=x[:20], y_train=np.arange(20) % 2, x_test=x[20:], y_test=np.arange(20) % 2)
        return Target(files=_read_all(folder, "a.npz", "b.npz"), name="a.npz", read=lambda path: api.data(path, graph))
    if reader in ("xylo", "speck", "nir", "netx"):
        return _prepare_exported(reader, folder, seed)
    if reader == "pynn":
        from spear_deploy.interchange.pynn.document import write_pynn
        from spear_deploy.interchange.pynn.reader import read_pynn

        leaky = Layer(name="a", synapse=Dense(weight=rng.normal(size=(3, 4))), neuron=LIF(tau_s=float(rng.uniform(0.003, 0.02))))
        write_pynn(chain([leaky], input_shape=(4,)), folder / "a.npz")
        return Target(files=_read_all(folder, "a.npz"), name="a.npz", read=read_pynn)
    if reader == "onnx":
        from spear_deploy.interchange.onnx.model_file import run_onnx

        content = (DEPLOYMENT / "onnx" / "network.onnx").read_bytes()
        return Target(files=[content], name="a.onnx", read=lambda path: run_onnx(path, spikes))
    if reader in ("shd", "idx", "cifar", "nmnist", "aedat"):
        return _prepare_data(reader, folder, rng)
    return _prepare_text(reader, folder)


def _read_all(folder: Path, *names: str) -> list[bytes]:
    return [(folder / name).read_bytes() for name in names]


def _prepare_text(reader: str, folder: Path) -> Target:
    """Return the readers of text: checkpoint, stages, project file, sweep, profile, folder of a deployment."""
    if reader == "checkpoint":
        from spear_deploy.pruning.candidates import Checkpoint

        content = (CORPUS / "checkpoint.json").read_bytes()
        return Target(files=[content], name="a.json", read=lambda path: Checkpoint(path, json.loads(content)["of"]))
    if reader == "stages":
        from spear_deploy.pipeline.stage_cache import read_stages

        return Target(files=[(DEPLOYMENT / "stages.json").read_bytes()], name="a.json", read=read_stages)
    if reader == "project":
        from spear_deploy.budget.budget_file import read_budget

        return Target(files=[(CORPUS / "spear.toml").read_bytes(), PROJECT.encode()], name="spear.toml", read=read_budget)
    if reader == "sweep":
        from spear_deploy.pipeline.sweep import read_sweep

        return Target(files=[SWEEP.encode()], name="a.toml", read=read_sweep)
    if reader == "profile":
        from spear_deploy.hardware.profile import load_profile

        return Target(files=[(CORPUS / "chip.yaml").read_bytes()], name="a.yaml", read=load_profile)
    return _prepare_folder(reader, folder)


def _prepare_folder(reader: str, folder: Path) -> Target:
    """Return a deployment packed into an archive, and what writes its page or compares it with what should be there."""
    from spear_deploy.pipeline.deployment import DeploySettings
    from spear_deploy.pipeline.verification.pruning import read_pruning
    from spear_deploy.pipeline.verification.results import derive
    from spear_deploy.pipeline.verification.verify import compare_with_derived, read_settings
    from spear_deploy.report import write_report
    from spear_deploy.report.folder import read_folder
    from tests.support.deployments import OPTIONS, deployed, task

    out = folder / "out"
    if reader == "report":
        shutil.copytree(DEPLOYMENT, out)
        work: Callable[[], Any] = lambda: write_report(out)  # noqa: E731
    else:
        shutil.copytree(deployed()[1], out)
        settings = DeploySettings(**OPTIONS)
        derived = derive(out, settings=settings, data=task(), chip="loihi2", full=False)

        def work() -> Any:
            read_settings(read_folder(out).provenance)
            read_pruning(out)
            return compare_with_derived(out, derived)

    names = [path.relative_to(out).as_posix() for path in sorted(out.rglob("*")) if path.suffix in (".json", ".npz")]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.write(out / name, name)

    def read(path: Path) -> Any:
        """Put the files of a deployment in place and read them."""
        with zipfile.ZipFile(path) as archive:
            present = archive.namelist()
            for name in names:
                if name in present:
                    (out / name).write_bytes(archive.read(name))
                else:
                    (out / name).unlink(missing_ok=True)
        return work()

    return Target(files=[packed.getvalue()], name="a.zip", read=read)


def _prepare_exported(reader: str, folder: Path, seed: int) -> Target:
    """Return files for other tools, written here."""
    seeds = {"xylo": 14, "speck": 19, "nir": 4, "netx": 9}
    suffix = {"xylo": "npz", "speck": "json", "nir": "nir", "netx": "net"}[reader]
    sd.export(random_chain(seeds[reader] + 20 * seed), folder / f"b.{suffix}", to=reader)
    if reader == "xylo":
        from spear_deploy.interchange.xylo.reader import read_xylo as read
    elif reader == "speck":
        from spear_deploy.interchange.speck.reader import read_speck as read
    else:
        read = sd.load
    files = _read_all(folder, f"b.{suffix}")
    return Target(files=files, name=f"a.{suffix}", read=read, sets=[_list_sets(file) for file in files if reader in HDF5])


def _list_sets(content: bytes) -> list[str]:
    names: list[str] = []
    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _prepare_data(reader: str, folder: Path, rng: np.random.Generator) -> Target:
    """Return collections of recordings and images."""
    from spear_deploy.data import load_data
    from spear_deploy.data.events import read_aedat, read_nmnist
    from spear_deploy.data.images import read_idx

    if reader == "shd":
        content = _write_shd(folder / "a.h5", rng).read_bytes()
        return Target(files=[content], name="a.h5", read=lambda path: load_data(path, steps=4), sets=[_list_sets(content)])
    if reader == "idx":
        values = rng.integers(0, 256, (3, 4, 4), np.uint8)
        return Target(files=[struct.pack(">BBBB3I", 0, 0, 8, 3, 3, 4, 4) + values.tobytes()], name="a-idx3-ubyte", read=read_idx)
    if reader == "cifar":
        records = rng.integers(0, 10, (12, 3073), np.uint8)
        records[:, 0] = np.arange(12) % 2
        (folder / "test_batch.bin").write_bytes(records[:4].tobytes())
        return Target(files=[records.tobytes()], name="data_batch_1.bin", read=lambda path: load_data(path.parent))
    if reader == "nmnist":
        events = rng.integers(0, 34, (40, 5), np.uint8).tobytes()
        return Target(files=[events], name="a.bin", read=lambda path: read_nmnist(path).frames((2, 34, 34), 4))
    x, y, times = rng.integers(0, 128, (3, 30))
    words = np.stack([x << 1 | y << 8, times], axis=1).astype(">u4")
    packet = struct.pack("<HHIIIIII", 1, 1, 8, 4, 0, 30, 30, 30)
    packet += np.stack([x << 17 | y << 2 | 1, times], axis=1).astype("<u4").tobytes()
    files = [b"#!AER-DAT2.0\r\n# x\r\n" + words.tobytes(), b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + packet * 2]
    return Target(files=files, name="a.aedat", read=lambda path: read_aedat(path).frames((2, 128, 128), 4))


def _write_shd(path: Path, rng: np.random.Generator) -> Path:
    with h5py.File(path, "w") as file:
        rows = h5py.vlen_dtype(np.float32), h5py.vlen_dtype(np.int64)
        times = [np.sort(rng.random(int(rng.integers(1, 6)))) for _ in range(20)]
        for name, kind in zip(("times", "units"), rows, strict=True):
            stored = file.create_dataset(f"spikes/{name}", (20,), kind)
            for n, row in enumerate(times):
                stored[n] = row if name == "times" else rng.integers(0, 9, len(row))
        file["labels"] = np.arange(20) % 2
    return path


def damage(reader: str, target: Target, seed: int) -> bytes:
    """Return a damaged file: its bytes, or what it holds."""
    rng = random.Random(f"{reader} {seed}")
    number = rng.randrange(len(target.files))
    content = target.files[number]
    if reader in ("report", "verify"):  # the archive is ours, not a file of the program: only what it holds is damaged
        return damaged_archive(content, rng)
    if seed % 2:
        if content[:2] == b"PK":
            return damaged_archive(content, rng)
        if reader in HDF5:
            return damaged_tree(content, target.sets[number], rng)
        if reader in TEXT:
            change = damaged_json if TEXT[reader] == "json" else damaged_lines
            return change(content.decode(), rng).encode("utf-8", "surrogatepass")
    return damaged(content, rng.getrandbits(40))


def run_cases(reader: str, first: int, count: int, state: Any = None) -> dict[str, Any]:
    """Read damaged files of the seeds from `first` on, and return the counts.

    Args:
        reader: its name.
        first, count: seeds.
        state: memory shared with the parent: the seed, how many were read and refused so far, and the longest time.
    """
    result: dict[str, Any] = {"cases": 0, "distinct": 0, "read": 0, "refused": 0, "slowest_s": 0.0, "wrong": []}
    seen: set[int] = set()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)
        (folder / "made").mkdir()
        target = prepare(reader, folder / "made", first)
        path = folder / ("made" if reader == "cifar" else "") / target.name
        for content in target.files:
            path.write_bytes(content)
            target.read(path)
        before = peak = _peak_bytes()
        for seed in range(first, first + count):
            content = damage(reader, target, seed)
            seen.add(hash(content))
            path.write_bytes(content)
            if state is not None:
                STATE.pack_into(state, 0, seed, result["read"], result["refused"], result["slowest_s"])
            start = _used_s(reader)
            _limit_processor(MAX_S + 1)
            try:
                target.read(path)
                result["read"] += 1
            except SpearError as error:
                result["refused"] += 1
                if "\n" in str(error) or not str(error).isprintable():
                    result["wrong"].append(f"{reader} {seed}: no line of text: {error!r}")
            except Exception as error:
                result["wrong"].append(f"{reader} {seed}: {type(error).__name__}: {str(error)[:200]!r}")
            seconds, now = round(_used_s(reader) - start, 3), _peak_bytes()
            if seconds > MAX_S or now - peak > MAX_BYTES + 10 * len(content):
                result["wrong"].append(f"{reader} {seed}: {seconds} s, {(now - peak) / 1e6:.0f} MB")
            result["slowest_s"] = max(result["slowest_s"], seconds)
            result["cases"] += 1
            peak = now
    reader_process.stop()
    children = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss if reader in HDF5 else 0
    if children > max(MAX_BYTES, _peak_bytes()):  # a child counts with the memory of its parent until it runs its own program
        result["wrong"].append(f"{reader} {first}: the process that reads HDF5 took {children / 1e6:.0f} MB")
    return {**result, "distinct": len(seen), "grown_mb": round(max(peak - before, children) / 1e6, 1)}


def _peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _used_s(reader: str) -> float:
    """Return the processor time of this process, and of the one that reads HDF5, whose copies count when they end."""
    own = time.process_time()
    if reader not in HDF5 or not reader_process._readers:
        return own
    fields = Path(f"/proc/{reader_process._readers[0].process.pid}/stat").read_text().rpartition(")")[2].split()
    return own + sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _limit_processor(more_s: int) -> None:
    """End this process when it takes so much more processor time."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + more_s, resource.RLIM_INFINITY))


def run_block(block: str, size: int | None = None) -> dict[str, Any]:
    """Run a block in processes of its own: a further one behind each case that ends one."""
    reader, number = block.split()
    count = size or block_size(reader)
    first, end = int(number) * count, (int(number) + 1) * count
    total: dict[str, Any] = {}
    while first < end:
        part, last = _run_forked(reader, first, end - first)
        for key, value in part.items():
            known = total.get(key, type(value)())
            total[key] = max(known, value) if key in ("slowest_s", "grown_mb") else known + value
        first = last + 1
    return total


def _run_forked(reader: str, first: int, count: int) -> tuple[dict[str, Any], int]:
    """Run cases in a copy of this process, and return the counts and the last case."""
    state = mmap.mmap(-1, STATE.size)
    STATE.pack_into(state, 0, first, 0, 0, 0.0)
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(readable)
            signal.signal(signal.SIGXCPU, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if reader not in ("onnx", "verify"):  # torch and onnxruntime reserve what they never use
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
            with open(writable, "w") as file:
                json.dump(run_cases(reader, first, count, state), file)
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{reader} {first}: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(1)
    os.close(writable)
    with open(readable) as file:
        text = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    last, were_read, refused, slowest = STATE.unpack_from(state, 0)
    if status == 0:
        return json.loads(text), first + count - 1
    wrong = [f"{reader} {last}: the process ends with {status}"]
    return {"cases": last + 1 - first, "read": were_read, "refused": refused, "slowest_s": slowest, "wrong": wrong}, last


def block_size(reader: str) -> int:
    """Return the cases of a block."""
    return 2000 if reader in SLOW else 10_000


def main() -> None:
    """Run all blocks of a number of cases."""
    parser = options(__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--only", choices=SHARES, help="one reader, which then gets all cases")
    arguments = parser.parse_args()
    shares = {arguments.only: 1000} if arguments.only else SHARES
    counts = {name: -(-arguments.cases * share // sum(shares.values()) // block_size(name)) for name, share in shares.items()}
    blocks = [(number, f"{name} {number:05d}") for name, count in counts.items() for number in range(count)]
    order = sorted(blocks, key=lambda pair: (pair[0] / counts[pair[1].split()[0]], pair[1]))  # all readers in turn
    run_blocks("fuzz", [name for _, name in order], run_block, record=arguments.record)


if __name__ == "__main__":
    main()
