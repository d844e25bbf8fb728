"""Our verdict against those of sinabs', rockpool's, akida's and nengo-loihi's mappers, on networks at the limits of their chips.

The table in docs/vendor_agreement.md is made by

    python -m tests.hardware.test_vendor_agreement
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from spear_deploy.budget.check import check
from spear_deploy.hardware.profile import load_profile
from spear_deploy.placement.place import Placement
from tests.support.framework_environments import NotInstalled, install
from tests.support.vendor_networks import Described, build_graph, draw

SCRIPT = Path(__file__).parents[1] / "support" / "vendor_mappers.py"
PAGE = Path(__file__).parents[2] / "docs" / "vendor_agreement.md"
NETWORKS = 310
CHIPS = {
    "speck": ("speck2f", "sinabs"),
    "xylo_audio2": ("xylo_audio2", "xylo"),
    "xylo_audio3": ("xylo_audio3", "xylo"),
    "xylo_imu": ("xylo_imu", "xylo"),
    "akida": ("akd1000", "akida"),
    "loihi1": ("loihi1", "nengo_loihi"),
}
"""By name for the mapper: our profile, and the environment."""

EXPLAINED = {
    "ours": {
        "akida": {
            r"Filter size is too big to fit in a CNP": "how large a filter may be is not published",
            r"Not enough hardware components of type FNP2": "how large a dense layer an FNP3 holds is not published",
        },
        "xylo_imu": {r"ValueError: \d+ is not in list": "rockpool's mapper for the IMU crashes on one hidden layer"},
    },
    "theirs": {
        "xylo_audio3": {r"tau_(mem|syn)_s of [\d.]+ steps": "rockpool tests tau > dt for Audio 2 and IMU, not for Audio 3"}
    },
}
"""By who alone lets a network pass, and chip: pattern of the other one's reason, and why the two differ."""


@dataclass(frozen=True)
class Agreement:
    """Verdicts on the networks of a chip.

    Attributes:
        counts: by (we do not refuse it, they do not).
        explained: how many networks differ, by explanation.
        unexplained: networks that differ otherwise, with both reasons.
        figures, different: words of memory compared on Speck and Loihi, and how many of them differ.
        fits: how many of the networks that pass fit outright, not only for want of a published number.
    """

    counts: Counter[tuple[bool, bool]]
    explained: Counter[str]
    unexplained: list[str]
    figures: int
    different: int
    fits: int

    def row(self, chip: str) -> str:
        """Return the row of the table."""
        cells = [self.counts[pair] for pair in ((True, True), (False, False), (True, False), (False, True))]
        reasons = "; ".join(f"{count}: {why}" for why, count in sorted(self.explained.items())) or "none"
        return f"| {chip} | {sum(cells)} | {' | '.join(map(str, cells))} | {reasons} |"


def compare(chip: str, folder: Path, count: int = NETWORKS) -> Agreement:
    """Have all networks of a chip answered by its maker's mapper and by `check`.

    Raises:
        NotInstalled: the mapper cannot be installed here.
    """
    profile_name, framework = CHIPS[chip]
    python, environment = install(framework, folder)
    networks = draw(chip, count)
    questions, answers = folder / "networks.json", folder / "answers.json"
    questions.write_text(json.dumps(networks))
    command = [python, SCRIPT, chip, questions, answers]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=1500)
    profile = load_profile(profile_name)
    counts: Counter[tuple[bool, bool]] = Counter()
    explained: Counter[str] = Counter()
    unexplained, figures, different, fits = [], 0, 0, 0
    for network, answer in zip(networks, json.loads(answers.read_text()), strict=True):
        report = check(build_graph(chip, network), profile)
        ours = report.verdict != "does_not_fit"
        counts[ours, answer["fits"]] += 1
        fits += report.verdict == "fits"
        if ours != answer["fits"]:
            lacking = [f.what for f in report.unsupported] + [r.resource for r in report.rows if r.status == "over"]
            reason = answer["why"] if ours else "; ".join(lacking)
            known = EXPLAINED["ours" if ours else "theirs"].get(chip, {})
            why = next((text for pattern, text in known.items() if re.search(pattern, reason)), None)
            if why is None or (report.verdict == "fits" and not any(note.startswith("mapper: ") for note in report.notes)):
                unexplained.append(f"{json.dumps(network)}: {answer['why']}; ours: {report.verdict}, {lacking}")
            else:
                explained[why] += 1
        for part, words in zip(report.placement.slices, answer.get("memory", ()), strict=False):
            ours_words = (part.memory_words, part.neuron_words, part.bias_words)
            figures += len(ours_words)
            different += sum(a != b for a, b in zip(ours_words, words, strict=True))
        if "cores" in answer:
            compared, differing = compare_cores(network, report.placement, answer["cores"])
            figures, different = figures + compared, different + differing
    return Agreement(counts, explained, unexplained, figures, different, fits)


def compare_cores(network: Described, placement: Placement, theirs: list[list[int]]) -> tuple[int, int]:
    """Return how many figures of the cores of Loihi 1 are compared, and how many differ: neurons, axons in and out, bits.

    nengo-loihi gives an axon to positions that a strided kernel never reads, so axons are compared without strides.
    """
    strided = any(layer.get("stride", 1) > 1 for layer in network["layers"])
    ours = [[part.neurons, part.axons_in, part.axons_out, 64 * (part.memory_words or 0)] for part in placement.slices]
    columns = (0, 3) if strided else (0, 1, 2, 3)
    pairs = [(a[n], b[n]) for a, b in zip(ours, theirs, strict=False) for n in columns]
    return len(pairs), sum(a != b for a, b in pairs) + len(columns) * abs(len(ours) - len(theirs))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("chip", CHIPS)
def test_no_network_fits_here_alone_without_an_explanation(chip: str, tmp_path: Path) -> None:
    try:
        agreement = compare(chip, tmp_path)
    except NotInstalled as reason:
        pytest.skip(f"{CHIPS[chip][1]}: {reason}")
    assert not agreement.unexplained, agreement.unexplained
    assert sum(agreement.counts.values()) >= 300 and agreement.counts[True, True] > 30 and agreement.counts[False, False] > 30
    assert agreement.different == 0 and (agreement.figures > 1500) == (chip in ("speck", "loihi1"))
    assert agreement.row(chip) in PAGE.read_text(encoding="utf-8")
    if chip == "akida":
        assert agreement.fits == 0  # its resets are not published: no network fits outright


def main() -> None:
    """Print the rows of the table."""
    for chip in sys.argv[1:] or CHIPS:
        with tempfile.TemporaryDirectory() as folder:
            agreement = compare(chip, Path(folder))
        print(
            agreement.row(chip),
            f"{agreement.different} of {agreement.figures} figures differ",
            *agreement.unexplained,
            sep="\n  ",
        )


if __name__ == "__main__":
    main()
