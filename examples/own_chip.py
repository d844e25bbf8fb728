"""Describe your own chip in a file, and vary the size of its cores.

    python examples/own_chip.py [folder]

The file is examples/smallchip.yaml; `spear-deploy profiles --new my.yaml` writes an empty one with every key.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import spear_deploy as sd

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "own_chip")
folder.mkdir(parents=True, exist_ok=True)
chip = Path(__file__).with_name("smallchip.yaml")

print(sd.check("digits", chip))

sizes = [512, 1024, 2048, 4096, 8192]
used = [sd.check("digits", chip, overrides={"core.synapse_memory": n}).cores_used for n in sizes]
for size, cores in zip(sizes, used, strict=True):
    print(f"{size:6,} words a core: {cores} cores")

figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.plot(sizes, used, marker="o")
axes.axhline(4, color="tab:red", linewidth=1, label="cores of the chip")
axes.set(xlabel="words of synapse memory a core", ylabel="cores that 'digits' needs")
axes.legend()
figure.savefig(folder / "cores.png")
print(f"picture: {folder / 'cores.png'}")
