"""Export a network to ONNX and run the file with onnxruntime alone.

python examples/export_onnx.py [folder]
"""

import json
import os
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, when onnxruntime is imported
import matplotlib.pyplot as plt
import numpy as np
import onnxruntime

import spear_deploy as sd
from spear_deploy.data import load_data

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "export_onnx")
test = load_data("digits").test
x = np.moveaxis(test.x[:64], 0, 1).astype(np.float32)  # (T, B, C, H, W)

certificate = sd.export("digits", folder / "digits.onnx", to="onnx", x=x)
print(f"read back by {certificate['reader']}: {certificate['mismatches']} spikes differ")

# From here on nothing of spear_deploy is used: a step of the network is a call, its states go out and come in again.
session = onnxruntime.InferenceSession(folder / "digits.onnx", providers=["CPUExecutionProvider"])
about = {key: value for key, value in session.get_modelmeta().custom_metadata_map.items() if key.startswith("spear_deploy.")}
print({key: value[:70] for key, value in about.items()})

names = [one.name for one in session.get_outputs()]
states, following = {}, {}
for state in json.loads(about["spear_deploy.states"]):
    start = np.asarray(state["start"], np.float32)
    states[state["name"]] = np.broadcast_to(start, (x.shape[1], *state["shape"])).copy()
    following[state["name"]] = state["next"]
outputs = []
for step in x:
    found = dict(zip(names, session.run(names, {"x": step, **states}), strict=True))
    states = {name: found[following[name]] for name in states}
    outputs.append(found["output"])

decided = np.mean(outputs, axis=0).argmax(-1)
print(f"{(decided == test.y[:64]).mean():.2%} of 64 test images right")
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
axes[0].imshow(x[:, 0, 0].mean(0), cmap="gray_r")
axes[0].set(title=f"one input, rate by pixel; label {test.y[0]}", xticks=[], yticks=[])
axes[1].plot(np.stack(outputs)[:, 0])
axes[1].legend([str(digit) for digit in range(10)], ncols=2, fontsize=7)
axes[1].set(xlabel="step", title=f"readout from onnxruntime: {decided[0]}")
figure.savefig(folder / "onnx.png")
print(f"picture: {folder / 'onnx.png'}")
