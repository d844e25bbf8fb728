"""Rank all chips for a network, and check it against one.

python examples/check_and_rank.py [folder] [network file]
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import spear_deploy as sd

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "check_and_rank")
folder.mkdir(parents=True, exist_ok=True)
net = sd.load(sys.argv[2] if len(sys.argv) > 2 else "digits")

ranked = sd.rank(net, activity=0.1)
for one in ranked:
    print(f"{one.profile:14} {one.verdict:14} {'; '.join(one.missing[:2])}")

best = next((one for one in ranked if one.verdict == "fits" and one.report.cores_limit), ranked[0])
print(f"\n{best.report}\n")
worst = ranked[-1].report
for row in worst.over:
    print(f"{worst.profile}: {row.resource} of {row.where}: {row.used:,.0f} of {row.limit:,.0f}; {row.remedy}")

rows = [row for row in best.report.rows if row.share is not None and row.unit != "thing" and row.share > 0]
figure, axes = plt.subplots(figsize=(8, 0.32 * len(rows) + 1), layout="constrained")
axes.barh([f"{row.resource} of {row.where}" for row in rows], [100 * row.share for row in rows])
axes.axvline(100, color="tab:red", linewidth=1)
axes.invert_yaxis()
axes.set(title=best.report.headline, xlabel="per cent of the limit")
axes.title.set_size(8)
figure.savefig(folder / "utilisation.png")
print(f"picture: {folder / 'utilisation.png'}")
