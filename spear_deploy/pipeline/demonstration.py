"""What does the whole path look like on a network that everybody can train?"""

from __future__ import annotations

import os
from pathlib import Path

from spear_deploy import digests, verbs
from spear_deploy.data import load_data
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.networks.digits import digits_network
from spear_deploy.pipeline import stages
from spear_deploy.pipeline.deploying import advice_for, with_ledger
from spear_deploy.pipeline.deployment import Deployment
from spear_deploy.pipeline.ledger import Ledger, Outcome
from spear_deploy.pipeline.start import check_on_lava, checked_start
from spear_deploy.progress import Progress
from spear_deploy.training import train


def demo(
    *,
    chip: verbs.Chip = "loihi2",
    out: str | os.PathLike[str] = "demo",
    seed: int = 0,
    synops: str | float = "50%",
    method: str | None = None,
    fresh: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> Deployment:
    """Train a small convolutional network on scikit-learn's digits and take it through the whole path.

    Arguments are those of `deploy`.
    """
    folder = Path(out)
    ledger = Ledger(folder, fresh=fresh, advice=advice_for(command), progress=progress)
    dataset = load_data("digits", seed=seed)

    def learn() -> Outcome:
        write_snn(train(digits_network(seed), dataset, seed=seed, progress=progress), folder / stages.DENSE)
        return Outcome(files=(stages.DENSE,))

    checked_start(digits_network(seed), chip, dataset, synops, seed)  # what cannot go on is said before anything is trained
    check_on_lava(digits_network(seed), verbs.profile(chip))
    ledger.run("train", {"data": digests.of_data(dataset), "seed": seed}, learn)
    return with_ledger(
        ledger, folder / stages.DENSE, chip, dataset, synops=synops, method=method, seed=seed, lava_samples=None, overrides=None,
        command=command,
    )  # fmt: skip
