"""Prune a network until it fits the cores and memory of a small chip.

    python examples/prune_to_fit.py [folder] [epochs]

The chip is examples/smallchip.yaml: four cores. About a minute; one epoch of fine-tuning is enough for a first result.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import spear_deploy as sd
from spear_deploy.data import load_data
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.pruning.chip_costs import build_chip_costs
from spear_deploy.pruning.prune_to_budget import prune_to_budget
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.training.evaluation import evaluate

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "prune_to_fit")
folder.mkdir(parents=True, exist_ok=True)
epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 4

net, digits, chip = sd.load("digits"), load_data("digits"), load_profile(Path(__file__).with_name("smallchip.yaml"))
before = sd.check(net, chip)
print(before)

settings = PruneSettings(fit=True, method="random", episodes=12, epochs=epochs)
result = prune_to_budget(net, digits, settings, chip=build_chip_costs(net, chip))
after = sd.check(result.graph, chip)
print(after)
write_snn(result.graph, folder / "fits.snn")
accuracy = [evaluate(graph, digits.test).accuracy for graph in (net, result.graph)]
print(f"widths {result.widths}; accuracy {accuracy[0]:.2%} before, {accuracy[1]:.2%} after")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
left.bar(["before", "after"], [before.cores_used, after.cores_used])
left.axhline(after.cores_limit, color="tab:red")
left.set(ylabel="cores", title=f"{after.profile}: {after.cores_limit} cores")
for shift, (label, which) in enumerate((("before", 0), ("after", 1))):
    right.bar([i + 0.4 * shift for i in range(len(result.widths))], [w[which] for w in result.widths.values()], 0.4, label=label)
right.set_xticks([i + 0.2 for i in range(len(result.widths))], list(result.widths))
right.set(ylabel="channels", title=f"accuracy {accuracy[0]:.1%} → {accuracy[1]:.1%}")
right.legend()
figure.savefig(folder / "fit.png")
print(f"picture: {folder / 'fit.png'}")
