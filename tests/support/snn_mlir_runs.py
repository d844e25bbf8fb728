"""Runs of integer networks as C: snn-mlir's kernel and driver, compiled and linked; in an environment that has snn-mlir.

    python snn_mlir_runs.py JOBS.json OUT.npz

JOBS is a list of `{"x": [[…]], "input_shape": […], "layers": […]}`. A layer is `dense` or `conv`, with `weight`, `bias` or null,
and `scale`, the power of two that stands for 1; `sum_pool`; `flatten`; or a neuron, `lif`, `cubalif`, `if` or `li`, with `shape`,
its `threshold` in 1/4096, and what it keeps of its states in a step, `keep_u` and `keep_v`, over 4096. OUT gets `n.k`: what each
neuron layer k of network n puts out, (T, neurons). A program prints its last layer alone: each network is compiled once for each.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nir
import numpy as np
from snn_mlir import _run as toolchain

ONE = 4096
"""Units of 1 in snn-mlir's states, decays and thresholds."""
SPATIAL = {"conv": ("stride", "padding"), "sum_pool": ("kernel_size", "stride", "padding")}


def to_node(layer: dict, shape: tuple[int, ...]) -> Any:
    """Return the NIR node from which snn-mlir's quantiser makes the integers of a layer."""
    kind, keep = layer["kind"], {name: layer.get(name, ONE) / ONE for name in ("keep_u", "keep_v")}
    if kind in ("dense", "conv"):
        weight = np.array(layer["weight"], np.float64) / 2.0 ** layer["scale"]
        bias = None if layer["bias"] is None else np.array(layer["bias"], np.float64) / 2.0 ** layer["scale"]
        if kind == "dense":
            return nir.Linear(weight=weight) if bias is None else nir.Affine(weight=weight, bias=bias)
        space = {name: tuple(layer[name]) for name in SPATIAL[kind]}
        bias = np.zeros(len(weight)) if bias is None else bias
        return nir.Conv2d(input_shape=shape[1:], weight=weight, bias=bias, dilation=1, groups=1, **space)
    if kind == "sum_pool":
        return nir.SumPool2d(**{name: np.array(layer[name]) for name in SPATIAL[kind]})
    if kind == "flatten":
        return nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)
    full = np.ones(layer["shape"])
    zero = {"v_leak": 0 * full} if kind != "if" else {}
    firing = {} if kind == "li" else {"v_threshold": full * layer["threshold"] / ONE, "v_reset": 0 * full}
    if kind == "if" or (kind == "li" and keep["keep_v"] == 1):
        return nir.IF(r=full, **firing) if kind == "if" else nir.I(r=full)
    # snn-mlir takes the step as tau / r, and from it the decay 1 - 1 / r
    gain = 1 / (1 - keep["keep_v"])
    if kind == "cubalif":
        tau_syn = 1 / (1 - keep["keep_u"])
        return nir.CubaLIF(tau_syn=full * tau_syn, tau_mem=full * gain, r=full * gain, w_in=full * tau_syn, **zero, **firing)
    return (nir.LI if kind == "li" else nir.LIF)(tau=full * gain, r=full * gain, **zero, **firing)


def to_graph(layers: list[dict], input_shape: tuple[int, ...]) -> Any:
    """Return the chain of the layers as a NIR graph."""
    nodes, shape = {"input": nir.Input(input_type={"input": np.array(input_shape)})}, input_shape
    for k, layer in enumerate(layers):
        nodes[f"n{k}"] = node = to_node(layer, shape)
        if layer["kind"] == "sum_pool":
            node.input_type = {"input": np.array(shape)}
        shape = tuple(layer["shape"])
        node.output_type = {"output": np.array(shape)}
    nodes["output"] = nir.Output(output_type={"output": np.array(shape)})
    return nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), type_check=False)


def run(layers: list[dict], input_shape: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    """Return what the last layer puts out, (T, neurons)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nir.write(folder / "network.nir", to_graph(layers, input_shape))
        np.savetxt(folder / "input.csv", x, fmt="%d", delimiter=",")
        try:
            results = toolchain.run_folder(folder, quantize=True)
        except subprocess.CalledProcessError as error:
            raise RuntimeError(error.stderr.decode()) from error
        return np.loadtxt(results, delimiter=",", dtype=np.int64, ndmin=2)


def main() -> None:
    """Run the jobs."""
    # views of a convolution's input are left to a pass of MLIR's own, which `run` of 1.0.0 does not call
    passes = toolchain._MLIR_OPT_PASSES
    passes.insert(passes.index("-lower-affine"), "-expand-strided-metadata")
    jobs, outputs = json.loads(Path(sys.argv[1]).read_text()), {}
    for n, job in enumerate(jobs):
        ends = [k for k, layer in enumerate(job["layers"]) if "keep_v" in layer]
        for k, end in enumerate(ends):
            outputs[f"{n}.{k}"] = run(job["layers"][: end + 1], tuple(job["input_shape"]), np.array(job["x"]))
    np.savez(sys.argv[2], **outputs)


if __name__ == "__main__":
    main()
