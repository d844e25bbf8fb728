"""Random valid networks through `adapt`: what it says agrees with `check`, and exact replacements change no spike.

    python -m tests.reliability.adapting --blocks 0-20            # 20 networks a block, each on all chips; a block takes minutes
    python -m tests.reliability.adapting --family rich --blocks 0-20
    python -m tests.reliability.adapting --family maps --blocks 0-20

Networks are those of `tests.reliability.wild`, or convolutions, pools, loops and a readout (`tests.adaptation.random_networks`).
On each chip: no error but a sentence; the file holds the network of the facts; the verdict is that of `check`; `missing` is empty
where `check` finds nothing that the chip lacks, and only there, but for what data would bring; with exact replacements alone no
output and no spike changes; what was replaced is not replaced again; and where nothing is missing the chip's integers exist.
Every `LEARNT_STEP`-th network also learns for an epoch on one chip.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import spear_deploy as sd
from spear_deploy.adaptation.plan import list_fixed
from spear_deploy.errors import SpearError
from spear_deploy.hardware.catalog import list_profiles
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.snn_file import hash_network
from spear_deploy.network.graph import SNNGraph
from spear_deploy.quantize import FORMATS
from tests.adaptation.random_networks import random_map_network
from tests.reliability.campaign import options, run_blocks
from tests.reliability.wild import FIRST_RICH_SEED, FIRST_SEED, random_network
from tests.support.wild_graphs import wild_spikes

BLOCK, STEPS, SAMPLES = 20, 5, 2
FIRST_MAP_SEED = 2_000_000
"""Seeds from here on are networks of maps."""
FIRST = {"wild": FIRST_SEED, "rich": FIRST_RICH_SEED, "maps": FIRST_MAP_SEED}
"""First seed of the blocks of each family."""
LEARNT_STEP = 10
"""Every so many-th network learns."""
RECORDINGS = 30


@dataclass
class Outcome:
    """Adaptations by what they came to, and what went wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"counts": self.counts, "wrong": self.wrong}


def run_adapting(seeds: range, folder: Path, *, chips: int = 0, learnt: int = LEARNT_STEP) -> Outcome:
    """Return what adapting the networks of the seeds came to.

    Args:
        seeds: of the networks.
        folder: for files.
        chips: that each network meets, in turn; 0: all of them.
        learnt: every so many-th network also learns; 0: none.
    """
    outcome, known = Outcome(), list_profiles()
    for seed in seeds:
        graph, kind = make_network(seed)
        if graph.is_integer:
            continue  # refused in one sentence (`tests/pipeline/test_adapt.py`)
        chosen = known if not chips else [known[(seed * chips + k) % len(known)] for k in range(chips)]
        for chip in chosen:
            adapt_once(graph, chip, None, seed, folder, outcome, place=f"{seed} {kind} {chip}")
        if learnt and seed % learnt == 0:
            chip = known[seed // learnt % len(known)]
            adapt_once(
                graph, chip, make_recordings(graph, seed, folder), seed, folder, outcome, place=f"{seed} {kind} {chip} learnt"
            )
    return outcome


def make_network(seed: int) -> tuple[SNNGraph, str]:
    """Return the network of a seed and its kind."""
    if seed < FIRST_MAP_SEED:
        return random_network(seed)
    return random_map_network(seed, axes=1 + seed % 2, plain=seed % 3 == 0), "map"


def make_recordings(graph: SNNGraph, seed: int, folder: Path) -> Path:
    """Write random recordings with as many classes as the network has outputs, two at least."""
    x = np.moveaxis(wild_spikes(graph, seed, steps=STEPS, batch=RECORDINGS), 0, 1).astype(np.uint8)
    classes = min(5, int(np.prod(graph.shape_of(graph.output))))
    path = folder / "data.npz"
    np.savez(path, x=x, y=np.arange(RECORDINGS) % classes)
    return path


def adapt_once(graph: SNNGraph, chip: str, data: Path | None, seed: int, folder: Path, outcome: Outcome, *, place: str) -> None:
    """Adapt a network to a chip, and add what it came to."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        learning = {"epochs": 1} if data is not None else {}
        try:
            facts = sd.adapt(graph, chip, data, out=out, **learning)
        except SpearError as error:
            outcome.counts["refused" if data is None else "refused learning"] += 1
            if "\n" in str(error) or not str(error):
                outcome.wrong.append(f"{place}: no sentence: {error!r}")
            elif data is None:
                outcome.wrong.append(f"{place}: {error}")
            return
        except Exception as error:
            outcome.wrong.append(f"{place}: {type(error).__name__}: {error}")
            return
        outcome.counts["complete" if not facts["missing"] else "incomplete"] += 1
        outcome.counts.update({row["kind"] for row in facts["replaced"]})
        try:
            outcome.wrong += [f"{place}: {line}" for line in find_contradictions(graph, chip, facts, Path(out), seed)]
        except Exception as error:  # what adapt wrote has to go through everything, so that a refusal is wrong too
            outcome.wrong.append(f"{place}: adapted, then {type(error).__name__}: {error}")


def find_contradictions(graph: SNNGraph, chip: str, facts: Mapping[str, Any], folder: Path, seed: int) -> Iterator[str]:
    """Yield what contradicts the facts of an adaptation."""
    adapted, profile = sd.load(folder / facts["files"]["adapted"]), load_profile(chip)
    if hash_network(adapted) != facts["adapted_digest"]:
        yield "the file holds another network than the facts name"
    report = sd.check(adapted, chip)
    if facts["accuracy"]["adapted"] is None and report.verdict != facts["verdict"]:  # data give a check their activity
        yield f"verdict {facts['verdict']}, check says {report.verdict}"
    lacking = [f"{row.layer}: {row.what}; {row.why}" for row in report.unsupported] + list(list_fixed(report))
    own = [line for line in facts["missing"] if not line.startswith("integers: ")]
    lasting = [line for line in own if "to be replaced after learning" not in line]
    if (lacking and not own) or (lasting and not lacking):
        yield f"missing {own}, check lacks {lacking}"
    kinds = {row["kind"] for row in facts["replaced"]}
    if "learnt" not in kinds and "bounded" not in kinds:
        yield from compare_outputs(graph, adapted, seed)
    if not own and profile.meta.family in FORMATS and not any("integers: " in line for line in facts["missing"]):
        try:
            sd.simulate(adapted, wild_spikes(adapted, seed, steps=STEPS, batch=SAMPLES), chip=chip)
        except SpearError as error:
            yield f"nothing is missing, but integers are refused: {error}"
    with tempfile.TemporaryDirectory(dir=folder) as out:
        again = sd.adapt(adapted, chip, out=out)
        if again["replaced"] and not own:
            yield f"replaced again: {again['replaced'][:2]}"


def compare_outputs(graph: SNNGraph, adapted: SNNGraph, seed: int) -> Iterator[str]:
    """Yield where outputs or spikes of layers that both have differ."""
    x = wild_spikes(graph, seed, steps=STEPS, batch=SAMPLES)
    before, after = (sd.simulate(each, x, record=("spikes",)) for each in (graph, adapted))
    pairs = {"output": (before.output, after.output)}
    pairs |= {name: (spikes, after.spikes[name]) for name, spikes in before.spikes.items() if name in after.spikes}
    for name, (a, b) in pairs.items():
        if a.size != b.size and name != "output":
            continue  # neurons that stand twice
        if a.size != b.size or not np.array_equal(np.reshape(a, -1), np.reshape(b, -1)):
            yield f"exact replacements, but '{name}' differs"


def run_block(block: str) -> dict[str, Any]:
    """Return the record of a block of networks."""
    family, number = block.split()
    first = FIRST[family] + BLOCK * int(number)
    with tempfile.TemporaryDirectory() as folder:
        return run_adapting(range(first, first + BLOCK), Path(folder)).to_json()


def main() -> None:
    """Run a range of blocks."""
    parser = options(__doc__)
    parser.add_argument("--blocks", default="0-20", help="first and last + 1, e.g. 10-20")
    parser.add_argument("--family", choices=tuple(FIRST), default="wild", help="of networks")
    arguments = parser.parse_args()
    first, last = (int(number) for number in arguments.blocks.split("-"))
    run_blocks("adapting", [f"{arguments.family} {n:03d}" for n in range(first, last)], run_block, record=arguments.record)


if __name__ == "__main__":
    main()
