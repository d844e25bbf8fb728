"""Runs of netx files with lava-dl's loader.

Usage: `python lava_dl_run.py SITE JOBS.json RESULTS.json NAME`.

SITE holds lava-dl 0.6.0, installed without what it depends on; Lava, torch and h5py are those of this environment. lava-dl
also wants OpenCV and matplotlib, for parts that are not used here: they are replaced by empty modules. Each file runs in a
copy of this process, with a time limit, since Lava hangs on errors. What a copy leaves in /dev/shm, this process removes: the
resource tracker of multiprocessing, which would have done it, is killed with the copy. It is named NAME-...
"""

import contextlib
import io as text_io
import json
import os
import signal
import sys
import types

import numpy as np

from spear_deploy.lava.worker.guard import name_shared_memory, remove_shared_memory

LIMIT_S = 15


def prepare(site):
    from spear_deploy.lava.worker.guard import make_lava_importable

    make_lava_importable()
    import lava

    lava.__path__ = [*lava.__path__, f"{site}/lava"]
    for name in ("matplotlib", "matplotlib.pyplot", "matplotlib.animation", "lava.lib.dl.slayer.object_detection"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["matplotlib"].pyplot = sys.modules["matplotlib.pyplot"]
    sys.modules["matplotlib"].animation = sys.modules["matplotlib.animation"]


def run(job):
    """Load a file, and play `x` (T, *shape) to it if there is one; return its layers' weights and what each emits."""
    from lava.lib.dl.netx import hdf5
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc import io

    # time starts at 1, and a synapse in front of the first neurons adds a step; from then on layer by layer
    net = hdf5.Network(net_config=job["file"], reset_interval=job.get("reset"), reset_offset=1)
    result = {}
    for n, layer in enumerate(net.layers):
        result[f"weight{n}"] = np.asarray(
            layer.synapse.weights.init if hasattr(layer.synapse, "weights") else layer.synapse.weight.init
        )
        result[f"exponent{n}"] = layer.synapse.proc_params.get("weight_exp", 0)
    steps = job.get("steps", 6)
    if "x" in job:
        x = np.load(job["x"])
    else:
        x = np.zeros((steps, *net.inp.shape[::-1]))
        x[0] = 1
    axes = tuple(range(x.ndim - 1, -1, -1)) if len(net.inp.shape) == 3 else (1, 0)
    data = x.transpose(axes) if len(net.inp.shape) == 3 else x.reshape(len(x), -1).transpose(axes)
    more = len(net) + 1
    data = np.concatenate([data, np.zeros((*data.shape[:-1], more))], axis=-1).astype(int)
    source = io.source.RingBuffer(data=data)
    source.s_out.connect(net.inp)
    sinks = [io.sink.RingBuffer(shape=layer.out.shape, buffer=data.shape[-1]) for layer in net.layers]
    for layer, sink in zip(net.layers, sinks, strict=True):
        layer.out.connect(sink.a_in)
    net.run(condition=RunSteps(num_steps=data.shape[-1]), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    for n, sink in enumerate(sinks):
        out = sink.data.get()[..., n + 1 : n + 1 + len(x)]  # one step later for each synapse on the way
        result[f"out{n}"] = out.transpose() if out.ndim == 4 else out.T
    net.stop()
    np.savez(job["out"], **result)


def loaded(job):
    """Return, for matrices in a file, what lava-dl and Lava's synapse make of them: NaN where the loader fails."""
    from lava.lib.dl.netx.utils import optimize_weight_bits
    from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights

    given, result = np.load(job["matrices"]), {}
    for name in given.files:
        try:
            with contextlib.redirect_stdout(text_io.StringIO()):
                weight, bits, exponent, _ = optimize_weight_bits(given[name])
        except OverflowError:
            result[name] = np.full(given[name].shape, np.nan)
            continue
        sign = determine_sign_mode(weight)
        result[name] = truncate_weights(clip_weights(weight, sign, 8), sign, bits) * 2.0**exponent
    np.savez(job["out"], **result)


def in_a_copy(function, job, memory):
    """Return None if it worked, else what went wrong."""
    reading, writing = os.pipe()
    copy = os.fork()
    if copy == 0:
        os.setsid()
        name_shared_memory(memory)
        signal.alarm(LIMIT_S)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        message = b"ok"
        try:
            function(job)
        except BaseException as error:
            message = f"{type(error).__name__}: {error}".encode()[:300]
        os.write(writing, message)
        os._exit(0)
    os.close(writing)
    os.waitpid(copy, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(copy, signal.SIGKILL)
    remove_shared_memory(memory)
    os.set_blocking(reading, False)
    try:
        message = os.read(reading, 1000).decode()
    except BlockingIOError:
        message = ""
    os.close(reading)
    return None if message == "ok" else message or "hangs"


def main():
    prepare(sys.argv[1])
    from lava.lib.dl.netx import hdf5  # noqa: F401  once, for all copies

    with open(sys.argv[2]) as file:
        jobs = json.load(file)
    results = [in_a_copy(loaded if "matrices" in job else run, job, sys.argv[4]) for job in jobs]
    with open(sys.argv[3], "w") as file:
        json.dump(results, file)
    os._exit(0)  # Lava joins its processes at exit


if __name__ == "__main__":
    main()
