"""Small HDF5 files and damaged copies of them."""

import io
import random

import h5py
import numpy as np

HOW = ("cut", "flip", "flips", "block", "zeros", "ones", "grow")


def small_netx() -> bytes:
    """Return a netx file with what makes the container: groups, text, scalars, chunks with compression."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for n in range(2):
            group = file.create_group(f"layer/{n}")
            group.create_dataset("type", (1,), "S10", [b"dense"])
            group["shape"] = np.array([3])
            group["weight"] = np.arange(9, dtype=np.float32).reshape(3, 3) * 2
            for key, value in {"type": "CUBA", "iDecay": 4096, "vDecay": 100, "vThMant": 10, "refDelay": 1}.items():
                group[f"neuron/{key}"] = value
        file["layer/1"].create_dataset("bias", data=np.zeros(3), compression="gzip", chunks=(2,))
        file["simulation/Ts"] = 1
    return buffer.getvalue()


def small_nir() -> bytes:
    """Return a NIR file of an affine map and a neuron."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        node = file.create_group("node")
        node["type"] = "NIRGraph"
        node["edges"] = np.array([[b"input", b"fc"], [b"fc", b"lif"], [b"lif", b"output"]], h5py.string_dtype())
        nodes = {
            "input": {"type": "Input", "shape": np.array([2])},
            "fc": {"type": "Affine", "weight": np.ones((3, 2)), "bias": np.zeros(3)},
            "lif": {"type": "LIF", "tau": np.full(3, 0.01), "r": np.ones(3), "v_leak": np.zeros(3), "v_threshold": np.ones(3)},
            "output": {"type": "Output", "shape": np.array([3])},
        }
        for name, fields in nodes.items():
            for key, value in fields.items():
                node.create_dataset(f"nodes/{name}/{key}", data=value)
    return buffer.getvalue()


def damaged(data: bytes, seed: int) -> bytes:
    """Return the bytes cut, flipped, overwritten or shifted, somewhere."""
    rng = random.Random(seed)
    damaged, how = bytearray(data), rng.choice(HOW)
    at = rng.randrange(len(damaged))
    if how == "cut":
        return bytes(damaged[: max(1, at)])
    if how == "flip":
        damaged[at] ^= 1 << rng.randrange(8)
    elif how == "flips":
        for _ in range(rng.randrange(2, 12)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    elif how == "block":
        other, n = rng.randrange(len(damaged)), rng.randrange(1, 64)
        damaged[at : at + n] = damaged[other : other + n]
    elif how == "grow":
        damaged[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 16)))
    else:
        damaged[at : at + 8] = (b"\0" if how == "zeros" else b"\xff") * len(damaged[at : at + 8])
    return bytes(damaged)
