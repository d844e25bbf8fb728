"""Count the SynOps of a trained network, also by other tools' rules.

python examples/count_synops.py [folder]
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import spear_deploy as sd
from spear_deploy.data import load_data

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "count_synops")
folder.mkdir(parents=True, exist_ok=True)

digits = load_data("digits")
found = sd.count("digits", digits, rules=True)  # "digits": a trained network that comes along

print(f"{found.synops_total:,.0f} SynOps per inference, mean over {found.samples} images of {found.steps} steps")
for layer, operations in found.synops_per_layer.items():
    print(f"  {layer:8} {operations:10,.0f}")
for rule, operations in found.rules.items():
    print(f"  rule {rule:24} {operations:12,.0f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
left.bar(list(found.synops_per_layer), list(found.synops_per_layer.values()))
left.set(title="SynOps per inference", ylabel="spikes × existing synapses")
right.barh(list(found.rules), list(found.rules.values()))
right.set(title="the same run by other rules", xlabel="operations")
figure.savefig(folder / "synops.png")
print(f"picture: {folder / 'synops.png'}")
