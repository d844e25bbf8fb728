"""Worker process: runs a program as Lava processes.

    python main.py FOLDER TIMEOUT_S

`FOLDER` holds `program.json` and `arrays.npz` (see `spear_deploy.lava.program`). Each pass is built, run and stopped;
its recordings lie in `FOLDER` afterwards, and `done.json` has the times. On failure: `failure.json` and an exit code.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # run by path, perhaps by another Python: its neighbours are no package

from guard import Guard, make_lava_importable  # type: ignore[import-not-found]

PACKAGE = Path(__file__).parents[2]
INPUT_PORTS = {"dense": "s_in", "sparse": "s_in", "conv": "s_in"}
INPUT_PORTS |= {"lif": "a_in", "complete_lif": "a_in", "port_recorder": "a_in"}
OUTPUT_PORTS = {"dense": "a_out", "sparse": "a_out", "conv": "a_out"}
OUTPUT_PORTS |= {"lif": "s_out", "complete_lif": "s_out", "source": "s_out"}


def main() -> None:
    """Run the program of the folder named on the command line."""
    folder = Path(sys.argv[1])
    guard = Guard(folder, float(sys.argv[2]))
    guard.start()
    try:
        seconds = run_program(folder, guard)
        aside = folder / "done.aside"
        aside.write_text(json.dumps(seconds), encoding="utf-8")
        aside.rename(folder / "done.json")
    except BaseException as error:
        guard.exit_with_error(error)
    os._exit(0)  # without waiting for processes that Lava may have left


def run_program(folder: Path, guard: Guard) -> dict[str, float]:
    """Run every pass of a program; return the seconds of import, build, run and stop."""
    import numpy as np

    begin = time.monotonic()
    make_lava_importable()
    from lava.magma.core.run_configs import Loihi2SimCfg

    seconds = {"import": time.monotonic() - begin, "build": 0.0, "run": 0.0, "stop": 0.0}
    program = json.loads((folder / "program.json").read_text(encoding="utf-8"))
    with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
        for row in program["passes"]:
            processes = build(row, arrays, folder)
            config = Loihi2SimCfg(select_tag="fixed_pt")
            for key, value in run_pass(row, processes, arrays, config, program["channel_size"], guard).items():
                seconds[key] += value
    return seconds


def run_pass(
    row: dict[str, Any], processes: dict[str, Any], arrays: Any, config: Any, channel_size: int, guard: Guard
) -> dict[str, float]:
    """Run one network through its steps, with pauses in which variables are set; return the seconds of build, run and stop."""
    from lava.magma.core.run_conditions import RunSteps

    network = next(iter(processes.values()))  # any of the processes starts and stops them all
    times = [time.monotonic()]
    guard.watch(network)
    network.create_runtime(run_cfg=config, compile_config={"pypy_channel_size": channel_size})
    times.append(time.monotonic())
    now = 0
    for pause in [*row["pauses"], {"step": row["steps"], "set": []}]:
        if pause["step"] > now:
            network.run(RunSteps(num_steps=pause["step"] - now))
            now = pause["step"]
        for name, variable, key in pause["set"]:
            getattr(processes[name], variable).set(arrays[key])
    times.append(time.monotonic())
    guard.watch(None)
    network.stop()
    times.append(time.monotonic())
    build_s, run_s, stop_s = (b - a for a, b in itertools.pairwise(times))
    return {"build": build_s, "run": run_s, "stop": stop_s}


def build(run: dict[str, Any], arrays: Any, folder: Path) -> dict[str, Any]:
    """Make the processes of a pass and connect them."""
    built: dict[str, Any] = {}
    for row in run["processes"]:
        built[row["name"]] = make_process(row, arrays, folder, run["steps"])
        built[row["name"]].name = row["name"]
    rows = {row["name"]: row for row in run["processes"]}
    for source, target in run["connections"]:
        if rows[target]["kind"] == "state_recorder":
            process, variable = source.rsplit(".", 1)
            built[target].state.connect_var(getattr(built[process], variable))
        else:
            connect(rows[source], built[source], rows[target], built[target])
    return built


def connect(source: dict[str, Any], sender: Any, target: dict[str, Any], receiver: Any) -> None:
    """Connect two processes. Conv takes and sends images (W, H, C), all others vectors in the order C, H, W."""
    output = getattr(sender, OUTPUT_PORTS[source["kind"]])
    if source["kind"] == "conv":
        output = output.transpose((2, 1, 0)).flatten()
    if target["kind"] == "conv":
        output = output.reshape(tuple(target["input_shape"])).transpose((2, 1, 0))
    output.connect(getattr(receiver, INPUT_PORTS[target["kind"]]))


def make_process(row: dict[str, Any], arrays: Any, folder: Path, steps: int) -> Any:
    """Make one Lava process from its row."""
    kind = row["kind"]
    if kind == "source":
        from lava.proc.io.source import RingBuffer

        return RingBuffer(data=arrays[row["data"]])
    if kind in ("dense", "sparse"):
        return make_synapse(row, arrays)
    if kind == "conv":
        return make_conv(row, arrays)
    if kind in ("lif", "complete_lif"):
        return make_neurons(row, arrays)
    if kind == "network":
        share_package()
        from processes.network.process import Network  # type: ignore[import-not-found]

        return Network(row=row, x=arrays[row["input"]], folder=str(folder))
    from processes.recorder import process  # type: ignore[import-not-found]

    recorder = {"port_recorder": process.PortRecorder, "state_recorder": process.StateRecorder}[kind]
    return recorder(shape=(row["size"],), steps=steps, dtype=row["dtype"], file=str(folder / row["file"]))


def share_package() -> None:
    """Make this package importable, and nothing that is installed beside it; the worker uses parts that need numpy only."""
    name, file = PACKAGE.name, PACKAGE / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(PACKAGE)])
    if name not in sys.modules and spec is not None and spec.loader is not None:
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])


def make_synapse(row: dict[str, Any], arrays: Any) -> Any:
    """Make Dense or Sparse, with the same delay for all synapses."""
    import numpy as np
    from lava.proc.dense.process import DelayDense, Dense
    from lava.proc.sparse.process import DelaySparse, Sparse
    from scipy.sparse import csr_matrix

    options = {"weight_exp": row["weight_exp"], "num_message_bits": row["message_bits"], "name": row["name"]}
    delay = row["delay"]
    if row["kind"] == "dense":
        weights = arrays[row["weights"]]
        if not delay:
            return Dense(weights=weights, **options)
        return DelayDense(weights=weights, delays=np.full(weights.shape, delay), **options)
    parts = tuple(arrays[f"{row['weights']}.{part}"] for part in ("data", "indices", "indptr"))
    weights = csr_matrix(parts, shape=row["shape"])
    if not delay:
        return Sparse(weights=weights, **options)
    delays = csr_matrix((np.full(len(parts[0]), delay), *parts[1:]), shape=row["shape"])
    return DelaySparse(weights=weights, delays=delays, **options)


def make_conv(row: dict[str, Any], arrays: Any) -> Any:
    """Make Conv."""
    from lava.proc.conv.process import Conv

    channels, height, width = row["input_shape"]
    geometry = {name: tuple(row[name]) for name in ("stride", "padding", "dilation")}
    return Conv(
        weight=arrays[row["weights"]],
        input_shape=(width, height, channels),
        groups=row["groups"],
        num_message_bits=row["message_bits"],
        name=row["name"],
        **geometry,
    )


def make_neurons(row: dict[str, Any], arrays: Any) -> Any:
    """Make LIF, LIFReset where the row names an interval, or our process `CompleteLIF` in place of either."""
    from lava.proc.lif.process import LIF, LIFReset

    parameters = {name: value if isinstance(value, int) else arrays[value] for name, value in row["parameters"].items()}
    if row["kind"] == "complete_lif":
        from processes.complete_lif.process import CompleteLIF  # type: ignore[import-not-found]

        more = {key: row[key] for key in ("subtract", "refractory_steps", "reset_interval", "reset_offset")}
        return CompleteLIF(shape=(row["size"],), name=row["name"], **parameters, **more)
    if row["reset_interval"] is None:
        return LIF(shape=(row["size"],), name=row["name"], **parameters)
    return LIFReset(
        shape=(row["size"],),
        name=row["name"],
        reset_interval=row["reset_interval"],
        reset_offset=row["reset_offset"],
        **parameters,
    )


if __name__ == "__main__":
    main()
