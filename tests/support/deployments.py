"""A deployment of a few seconds with real stages, made once."""

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np

import spear_deploy as sd
from spear_deploy.data import from_arrays
from spear_deploy.network import LI, CubaLIF, Dense, Layer
from spear_deploy.network.graph import chain

OPTIONS = {"synops": "70%", "method": "uniform", "lava_samples": 4}


def arrays(seed=0, samples=120):
    """Return three classes of inputs that spike at rates of their own."""
    rng = np.random.default_rng(seed)
    y = np.arange(samples) % 3
    rates = rng.random((3, 10)) * 0.8
    x = (rng.random((samples, 6, 10)) < rates[y][:, None]).astype(np.uint8)
    return {"x": x, "y": y}


def task(seed=0, samples=120):
    return from_arrays(arrays(seed, samples), name="task")


def network(first, *, hidden=8, seed=0):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=shape).astype(np.float32) / 2 for shape in ((hidden, 10), (3, hidden))]
    bias = np.zeros(hidden, np.float32) + np.float32(0.01)
    layers = [
        Layer(name="fc", synapse=Dense(weight=weights[0], bias=bias), neuron=first),
        Layer(name="out", synapse=Dense(weight=weights[1]), neuron=LI(tau_s=0.002)),
    ]
    return chain(layers, input_shape=(10,))


def dense():
    # a bias on a current is what netx cannot hold: the rest of the path does not depend on that
    return network(CubaLIF(tau_mem_s=0.002, tau_syn_s=0.002, w_in=2.0, v_threshold=0.3))


@lru_cache(maxsize=1)
def deployed():
    """Return (result, its folder, the stages that were told); the folder is to be copied, not changed."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    messages = []
    result = sd.deploy(dense(), "loihi2", task(), out=folder / "out", progress=messages.append, **OPTIONS)
    return result, folder / "out", messages
