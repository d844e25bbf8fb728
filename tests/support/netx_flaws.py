"""Small netx files with one flaw, and lava-dl's behaviour on each."""

import numpy as np

from tests.support.netx_files import bare, row

W = np.arange(1.0, 7.0).reshape(3, 2) * 3
K = np.arange(1.0, 19.0).reshape(2, 1, 3, 3)
INPUT = bare("input", [1, 5, 5])
GEOMETRY = {"stride": np.array([1, 1]), "padding": np.array([0, 0]), "dilation": np.array([1, 1]), "groups": 1}


def dense(**more):
    return drop(row("dense", [3], weight=W) | more)


def conv(**more):
    return drop(row("conv", [2, 3, 3], weight=K, **GEOMETRY) | more)


def drop(fields):
    return {key: value for key, value in fields.items() if value is not None}


FINE = {
    "dense": [dense()],
    "one bias for all": [dense(bias=np.array([5.0]))],
    "scalar bias of a dense entry": [dense(bias=5.0)],
    "text of variable length": [dense(type="dense")],
    "scalar shape of a dense entry": [dense(shape=3)],
    "no neuron": [dense(**{f"neuron/{key}": None for key in ("type", "iDecay", "vDecay", "vThMant")})],
    "scalar delay": [dense(delay=2)],
    "delay per neuron": [dense(delay=np.array([2.0, 1, 0]))],
    "recurrent": [dense(type="dense_rec", weight_rec=np.eye(3) * 4)],
    "flat weights": [dense(weight=W.ravel())],
    "convolution": [INPUT, conv()],
    "kernel with a time axis": [INPUT, conv(weight=K[..., None])],
    "scalar stride": [INPUT, conv(stride=1)],
    "bias per channel": [INPUT, conv(bias=np.array([3.0, 4]))],
    "zero kernel": [INPUT, conv(weight=K * 0)],
    "flatten": [INPUT, conv(), bare("flatten", [18, 1, 1]), dense(weight=np.ones((3, 18)))],
    "sigma-delta": [dense(bias=np.ones(3)) | {"neuron/type": "SDNN"}],
}
"""Files that lava-dl loads and runs as they are written."""

FAILS = {
    "all-zero": [dense(weight=W * 0)],
    "scalar-shape": [INPUT, conv(shape=18)],
    "scalar-bias": [INPUT, conv(bias=3.0)],
    "bias-shape": [dense(bias=np.array([5.0, 1]))],
    "shape-dtype": [dense(shape=np.array([3.0]))],
    "shape-axes": [INPUT, conv(shape=np.array([2, 9]))],
    "size-shape": [INPUT, conv(stride=np.array([1]))],
    "size-dtype": [INPUT, conv(stride=np.array([1.0, 1.0]))],
    "missing-key": [INPUT, conv(padding=None)],
    "missing-input": [conv()],
    "missing-flatten": [INPUT, conv(), dense(weight=np.ones((3, 18)))],
    "transposed-weight": [dense(weight=W.T)],
    "weight-shape": [dense(weight=W.reshape(3, 2, 1))],
    "kernel-shape": [INPUT, conv(weight=K[:, 0])],
    "shapes-do-not-chain": [dense(), dense(weight=np.ones((3, 4)))],
    "delay-shape": [dense(delay=np.array([2]))],
    "delay-range": [dense(delay=np.array([2.0, -1, 0]))],
    "recurrent-delay": [dense(type="dense_rec", weight_rec=np.eye(3) * 4, delay=1)],
    "input-transform": [row("input", [3], weight=np.array([1.0, 2.0])), dense(weight=np.ones((3, 3)))],
    "neuron-type": [dense(**{"neuron/type": "ALIF"})],
    "neuron-dtype": [dense(**{"neuron/vThMant": 10.0})],
    "message-bits": [dense(**{"neuron/messageBits": 8})],
    "bias-of-sum": [dense(bias=np.ones(3)) | {"neuron/type": "SDNN", "neuron/sigma_output": True}],
    "not-implemented": [INPUT, conv(type="pool", weight=np.full((1, 1, 3, 3), 4.0), shape=np.array([1, 3, 3]))],
    "transposed-kernel": [INPUT, conv(weight=K[:, :, :1], inChannels=1, kernelSize=np.array([3, 1]), shape=np.array([2, 3, 5]))],
    "type-not-text": [dense(type=np.frombuffer(b"dense", np.uint8))],
    "complex-weight": [{**dense(weight=None), "weight/imag": W, "weight/real": W}],
}
"""By rule: files that lava-dl fails to load or run."""

CHANGED = {
    "weight-range": [dense(weight=np.full((3, 2), 300.0))],
    "weight-not-whole": [dense(weight=W + 0.5)],
    "lost-bit": [dense(weight=W - 10 + 200 * np.eye(3, 2))],
    "bias-not-whole": [dense(bias=np.array([1.5, 2, 3]))],
    "unknown-type": [dense(), bare("kwta", [3])],
}
"""By rule: files that lava-dl loads as something else."""

PASSED_OVER = {
    "refractory": [dense(**{"neuron/refDelay": 3})],
    "weight-exponent": [dense(**{"neuron/wgtExp": 1})],
    "graded-spikes": [dense(**{"neuron/gradedSpike": True})],
    "activation": [dense(**{"neuron/type": "SDNN", "neuron/activation": "tanh"})],
    "adaptation": [dense(**{"neuron/type": "ADRF_PHASE"})],
    "conv-delay": [INPUT, conv(delay=2)],
    "size-8-bit": [
        bare("input", [200, 1, 1]),
        row("conv", [200, 1, 1], weight=np.ones((200, 1, 1, 1)), **GEOMETRY | {"groups": 200}),
    ],
    "bias-range": [dense(bias=np.array([5000.0]))],
}
"""By rule: what lava-dl passes over, or only a chip minds."""
