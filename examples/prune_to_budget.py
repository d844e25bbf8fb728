"""Prune a trained network to half its SynOps, and draw the search.

    python examples/prune_to_budget.py [folder] [share] [episodes] [epochs]

`spear-deploy prune digits --chip loihi2 --data digits --synops 50% --out pruned` is the same with the full search.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import spear_deploy as sd
from spear_deploy.data import load_data
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.pruning.prune_to_budget import prune_to_budget
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.training.evaluation import evaluate

given = dict(enumerate(sys.argv))
folder, share = Path(given.get(1, "prune_to_budget")), given.get(2, "50%")
episodes, epochs = int(given.get(3, 30)), int(given.get(4, 4))
folder.mkdir(parents=True, exist_ok=True)

net, digits = sd.load("digits"), load_data("digits")
result = prune_to_budget(net, digits, PruneSettings(synops=share, episodes=episodes, epochs=epochs))
write_snn(result.graph, folder / "pruned.snn")

before, after = evaluate(net, digits.test), evaluate(result.graph, digits.test)
print(f"widths {result.widths}")
print(f"SynOps {before.synops.total:,.0f} → {after.synops.total:,.0f} ({after.synops.total / before.synops.total:.1%})")
print(f"accuracy {before.accuracy:.2%} → {after.accuracy:.2%} on {len(digits.test)} test images")

facts = result.to_json()
candidates = [(row["predicted"], row["accuracy"]) for row in facts["search"]]
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.scatter(*zip(*candidates, strict=True), s=14, label="candidates, before fine-tuning")
axes.scatter([before.synops.total], [before.accuracy], marker="s", color="tab:gray", label="as trained")
axes.scatter([after.synops.total], [after.accuracy], marker="*", s=120, color="tab:red", label="pruned and fine-tuned")
axes.set(xlabel="SynOps per inference", ylabel="accuracy")
axes.legend()
figure.savefig(folder / "search.png")
print(f"picture: {folder / 'search.png'}")
